"""Checkpoints that are whole or are not there.

A checkpoint folder is written first and marked last: ``round.json`` holds the state of the
mixture and is what makes the folder count. A folder without it is what a killed run left behind
and is deleted when training goes on.
"""

import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any

from versatune.artifacts import read_json, write_json
from versatune.errors import VersatuneError

logger = logging.getLogger(__name__)

STATE = "round.json"
_NAME = re.compile(r"checkpoint-(\d+)")


def step_of(path: Path) -> int:
    """The optimiser step a checkpoint folder was written at."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path} is not a checkpoint folder")
    return int(match.group(1))


def complete(folder: Path) -> list[Path]:
    """The whole checkpoints below ``folder``, oldest first."""
    found = [p for p in folder.glob("checkpoint-*") if _NAME.fullmatch(p.name)]
    return sorted((p for p in found if (p / STATE).is_file()), key=step_of)


def discard_incomplete(folder: Path) -> None:
    """Delete what an interrupted save left."""
    whole = set(complete(folder))
    for path in folder.glob("checkpoint-*"):
        if path not in whole:
            logger.warning("%s was not written to its end: deleted.", path)
            shutil.rmtree(path)


def mark(path: Path, state: dict[str, Any]) -> None:
    """Make a written checkpoint count: its files reach the disk, then its state."""
    for file in path.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
    write_json(path / STATE, state)


def state_of(path: Path) -> dict[str, Any]:
    """The state of the mixture at a checkpoint."""
    state: dict[str, Any] = read_json(path / STATE)
    return state


def rotate(folder: Path, limit: int, keep: int | None) -> None:
    """Delete the oldest until ``limit`` are left; the one of step ``keep`` stays besides."""
    free = [p for p in complete(folder) if step_of(p) != keep]
    for path in free[: max(0, len(free) - limit)]:
        # The mark goes first, so that a half-deleted folder is not taken for a whole one.
        (path / STATE).unlink()
        shutil.rmtree(path)


def check_space(folder: Path, needed: int) -> None:
    """Raise VersatuneError unless ``folder`` has room for ``needed`` bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise VersatuneError(
            f"{folder} has {free / 1e9:.1f} GB free, and training needs about "
            f"{needed / 1e9:.1f} GB for its checkpoints and the trained model: free some, choose "
            "another folder (train.folder), or lower train.save_total_limit."
        )
