"""A piece of work: what it is made from, the function that makes its files, a manifest last."""

from versatune.work.folder import Piece, WorkFolder, make_folder, not_needed

__all__ = ["Piece", "WorkFolder", "make_folder", "not_needed"]
