"""Checkpoints: only complete ones count.

A checkpoint folder is written first and marked last: ``round.json`` holds the state of the mixture
and a checksum of every file and of itself, and is what makes the folder count. A folder without it
was left by a killed run. It is deleted when training continues, and so is one whose files have
changed.
"""

import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any

from versatune.artifacts import file_digest, is_intact, read_json, with_checksum, write_json
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


def discard_unsound(folder: Path) -> None:
    """Delete the remains of an interrupted save, and every damaged checkpoint."""
    faults = {p: fault for p in folder.glob("checkpoint-*") if (fault := _fault(p)) is not None}
    left = [path for path in complete(folder) if path not in faults]
    then = f"training goes on from {left[-1].name}" if left else "training starts over"
    for path, fault in faults.items():
        logger.warning("%s %s: deleted, %s.", path, fault, then)
        shutil.rmtree(path)


def mark(path: Path, state: dict[str, Any]) -> None:
    """Mark a written checkpoint as complete: flush its files, then write their checksums."""
    files = {}
    for file in filter(Path.is_file, sorted(path.rglob("*"))):
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
        files[file.relative_to(path).as_posix()] = file_digest(file)
    write_json(path / STATE, with_checksum({"state": state, "files": files}))


def state_of(path: Path) -> dict[str, Any]:
    """The state of the mixture at a checkpoint."""
    state: dict[str, Any] = read_json(path / STATE)["state"]
    return state


def _fault(path: Path) -> str | None:
    """What is wrong with a checkpoint, if anything."""
    if not (path / STATE).is_file():
        return "was not written to its end"
    try:
        mark = read_json(path / STATE)
    except VersatuneError:
        mark = None
    if not (
        isinstance(mark, dict)
        and is_intact(mark, "state", "files")
        and isinstance(mark["files"], dict)
    ):
        return f"has a damaged {STATE}"
    for name, digest in mark["files"].items():
        if not (path / name).is_file() or file_digest(path / name) != digest:
            return f"is damaged ({name} is not what was written)"
    return None


def rotate(folder: Path, limit: int, keep: int | None) -> None:
    """Delete the oldest until ``limit`` are left; the one of step ``keep`` stays besides."""
    free = [p for p in complete(folder) if step_of(p) != keep]
    for path in free[: max(0, len(free) - limit)]:
        # The mark goes first, so that a half-deleted folder is not taken for a whole one.
        (path / STATE).unlink()
        shutil.rmtree(path)


def taken(folder: Path) -> int:
    """Bytes of all files below ``folder``."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def check_space(folder: Path, needed: int) -> None:
    """Raise VersatuneError unless ``folder`` has room for ``needed`` bytes more."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise VersatuneError(
            f"{folder} has {free / 1e9:.1f} GB free, and training needs about "
            f"{needed / 1e9:.1f} GB more for its checkpoints and the trained model: free some, "
            "move all data (`data` in globals.yml), or lower train.save_total_limit."
        )
