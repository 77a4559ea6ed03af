"""Independent pieces of work, each in a folder of its own, made side by side."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from versatune.artifacts import FolderRef
from versatune.errors import VersatuneError
from versatune.work.calls import Call, ParallelParams, emitting_to
from versatune.work.folder import Piece, WorkFolder, make_folder
from versatune.work.parallel import side_by_side


@dataclass(frozen=True)
class Began:
    """The event of a piece that begins."""

    whole: bool
    """Whether it was finished before."""


@dataclass(frozen=True)
class Ended:
    """The event of a piece that is finished, with its last numbers by name."""

    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Failed:
    """The event of a piece that raised an error."""


OnPieceEvent = Callable[[str, Any], None]
"""Receives a piece's name and what it passes to :func:`versatune.work.calls.emit`."""


@dataclass(frozen=True)
class Pieces:
    """Pieces by name, and how they share the hardware."""

    pieces: Mapping[str, Piece]
    """Everything in them must pass pickle, unless ``parallel.workers`` is 1."""
    parallel: ParallelParams
    listening: Callable[[], contextlib.AbstractContextManager[OnPieceEvent]] = lambda: (
        contextlib.nullcontext(lambda _name, _event: None)
    )
    """Entered while they are made, in the process that asked for them; gives what receives their
    events."""


def make_pieces(pieces: Pieces, folder: Path) -> dict[str, FolderRef]:
    """Make every piece in the folder of its name below ``folder``; their references, in order.

    Those that are there are found in this process; no other is started for them. Raises what
    :func:`~versatune.work.folder.make_folder` and :func:`~versatune.work.parallel.side_by_side`
    raise.
    """
    paths = {name: folder / name for name in pieces.pieces}
    there = [name for name, piece in pieces.pieces.items() if _is_made(piece, paths[name])]
    calls = [
        Call(name, make_folder, {"piece": piece, "path": paths[name]})
        for name, piece in pieces.pieces.items()
        if name not in there
    ]
    made: dict[str, FolderRef] = {}
    with pieces.listening() as on_event:
        for name in there:
            with emitting_to(lambda event, name=name: on_event(name, event)):  # type: ignore[misc]
                made[name] = make_folder(pieces.pieces[name], paths[name])
        results = side_by_side(
            calls, pieces.parallel, lambda call, event: on_event(call.name, event)
        )
    if calls:  # in other processes, whose counts this one does not see
        WorkFolder.counts["sealed"] += 1
    made |= {call.name: ref for call, ref in zip(calls, results, strict=True)}
    return {name: made[name] for name in pieces.pieces}


def _is_made(piece: Piece, path: Path) -> bool:
    try:
        found = FolderRef.load(path)
    except VersatuneError:
        return False
    return found.fingerprint == piece.fingerprint and piece.enough(found)
