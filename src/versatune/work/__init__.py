"""A piece of work: what it is made from, the function that makes its files, a manifest last."""

from versatune.work.calls import ParallelParams
from versatune.work.folder import (
    UNCHANGED,
    Piece,
    Unchanged,
    WorkFolder,
    make_folder,
    not_needed,
)
from versatune.work.pieces import Pieces, make_pieces

__all__ = [
    "UNCHANGED",
    "ParallelParams",
    "Piece",
    "Pieces",
    "Unchanged",
    "WorkFolder",
    "make_folder",
    "make_pieces",
    "not_needed",
]
