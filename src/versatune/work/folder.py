"""Folders of work that survive: made once, resumed after a kill, never mistaken for another's.

A stage describes its result as a :class:`Piece`; :func:`make_folder` makes it in the folder it is
given. With the same inputs it uses what is there: work goes on, or is done. With other inputs it
starts over, or does as :attr:`Piece.on_change` says. The manifest is written last, so a folder with
a valid manifest is whole.
"""

import contextlib
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from versatune.artifacts import (
    INPUTS,
    MANIFEST,
    FolderRef,
    check,
    differences,
    exclusive,
    file_digest,
    files_below,
    fingerprint,
    is_temporary,
    read_json,
    to_jsonable,
    with_checksum,
    write_json,
)
from versatune.errors import VersatuneError

logger = logging.getLogger(__name__)

OnChange = Literal["replace", "keep", "leave"]
SKIPPED = "skipped"
SHOWN = 3
"""Changed keys that the log names, of a finished folder that is kept; the others are counted."""


class Unchanged(Enum):
    """What a stage returns that has nothing to do: what it made before stays."""

    UNCHANGED = "unchanged"


UNCHANGED = Unchanged.UNCHANGED
ADVICE = "Restore them, or delete this folder to start over."


def _always(_: FolderRef) -> bool:
    return True


@dataclass(frozen=True)
class Piece:
    """A folder that is to be made; where it lies is up to whoever makes it."""

    inputs: Mapping[str, Any]
    """All that decides the result: parameters, and fingerprints of what is read."""
    make: Callable[[Path], Mapping[str, Any]]
    """Writes the files, going on from those it finds; returns the metadata for the manifest."""
    on_change: OnChange = "replace"
    """What becomes of a folder that was made from other inputs. ``replace``: it is emptied.
    ``keep``: a finished one is moved to ``<folder>.previous`` (what lay there goes), an unfinished
    one is refused with the keys that differ. ``leave``: a finished one is taken as it is, an
    unfinished one is refused."""
    advice: str | None = ADVICE
    """What a person can do about an unfinished folder that is in the way; None empties it."""
    enough: Callable[[FolderRef], bool] = _always
    """Whether a whole folder needs no more. Otherwise ``make`` goes on in it."""
    around: Callable[[Path, bool], contextlib.AbstractContextManager[None]] | None = None
    """Entered with the folder, and whether it was whole, while it is made or found."""

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the inputs, and of the finished folder."""
        return fingerprint(self.inputs)


def not_needed(on_change: OnChange = "replace", advice: str | None = None) -> Piece:
    """The piece of a stage that parameters leave out: a folder that says so."""
    metadata = {SKIPPED: True}
    return Piece(metadata, lambda _: metadata, on_change, advice)


def make_folder(piece: Piece, path: Path | str) -> FolderRef:
    """Make ``piece`` in ``path``, or go on with it, or find it whole; its reference.

    Raises VersatuneError when another process is at work there, when the folder is not ours or
    can't be written, when it holds unfinished work that must not be given up, and what
    ``piece.make`` raises: the folder is then unfinished, and the next call goes on.
    """
    path = Path(path)
    with exclusive(path.with_name(f".{path.name}.lock"), str(path)):
        if piece.on_change == "leave" and (path / INPUTS).is_file() and (path / MANIFEST).is_file():
            return FolderRef.load(path, verify=False)
        work = WorkFolder.open(path, piece.inputs, piece.on_change, piece.advice)
        whole = work.complete and piece.enough(work.ref)
        with piece.around(path, whole) if piece.around else contextlib.nullcontext():
            if not whole:
                work.reopen()
                work.seal(**piece.make(path))
        return work.ref


class WorkFolder:
    """A folder a stage works in; make it with :meth:`open`."""

    counts: ClassVar[dict[str, int]] = {"opened": 0, "sealed": 0}
    """How many were opened and sealed by this process: only opened, work was found done."""

    def __init__(self, path: Path, inputs: Any, metadata: dict[str, Any] | None) -> None:
        self.path = path
        self.inputs = inputs
        self.fingerprint = fingerprint(inputs)
        self._metadata = metadata

    @property
    def complete(self) -> bool:
        """Whether the work was finished and sealed with these very inputs."""
        return self._metadata is not None

    @property
    def ref(self) -> FolderRef:
        """The reference to hand on. Only after :meth:`seal`, or when ``complete``."""
        if self._metadata is None:
            raise RuntimeError(f"{self.path} is not sealed")
        return FolderRef(path=self.path, fingerprint=self.fingerprint, metadata=self._metadata)

    @classmethod
    def open(
        cls,
        path: Path | str,
        inputs: Mapping[str, Any],
        on_change: OnChange = "replace",
        advice: str | None = ADVICE,
    ) -> Self:
        """Open ``path`` for work on ``inputs`` (parameters and fingerprints of what is read).

        - the same inputs, finished and undamaged: ``complete`` is true, ``ref`` is ready;
        - the same inputs, unfinished: what is there is kept, the caller goes on from it;
        - other inputs: as :attr:`Piece.on_change` says;
        - a folder that this function did not make and that is not empty is never touched:
          VersatuneError.
        """
        path = Path(path)
        wanted = to_jsonable(inputs)
        if path.exists() and not (path / INPUTS).is_file():
            # A process killed while it wrote its first file leaves that file's beginning.
            if not path.is_dir() or any(not is_temporary(f) for f in path.iterdir()):
                raise VersatuneError(
                    f"{path} exists and was not made by versatune: move it elsewhere."
                )
        elif path.exists():
            try:
                found = read_json(path / INPUTS)
            except VersatuneError as error:
                raise VersatuneError(
                    f"{path / INPUTS} is damaged; delete {path} and run again."
                ) from error
            if found != wanted:
                unfinished = not (path / MANIFEST).is_file()
                if on_change == "replace" or (unfinished and advice is None):
                    _discard(path)
                else:
                    _set_aside(path, differences(found, wanted), advice)
        try:
            path.mkdir(parents=True, exist_ok=True)
            write_json(path / INPUTS, wanted)
        except OSError as error:
            raise VersatuneError(f"{path} can't be written: {error.strerror}.") from error
        metadata = None
        if (path / MANIFEST).is_file():
            try:
                metadata = check(path)["facts"]
            except VersatuneError as error:
                logger.warning("%s Made again.", error)
                _discard(path)
                path.mkdir()
                write_json(path / INPUTS, wanted)
        cls.counts["opened"] += 1
        return cls(path, wanted, metadata)

    def reopen(self) -> None:
        """Take the seal off, before a file of a finished folder is replaced: should the process be
        killed meanwhile, the folder is unfinished and not damaged."""
        self._metadata = None
        (self.path / MANIFEST).unlink(missing_ok=True)

    def seal(self, **metadata: Any) -> FolderRef:
        """Write the manifest, last of all: the folder is finished. Returns its reference."""
        self._metadata = to_jsonable(metadata)
        for left_over in filter(is_temporary, list(self.path.rglob("*"))):
            left_over.unlink()
        names = [n for n in files_below(self.path) if n not in (MANIFEST, INPUTS)]
        files = {name: file_digest(self.path / name) for name in names}
        manifest = {"fingerprint": self.fingerprint, "facts": self._metadata, "files": files}
        write_json(self.path / MANIFEST, with_checksum(manifest))
        self.counts["sealed"] += 1
        return self.ref


def _set_aside(path: Path, changed: list[str], advice: str | None) -> None:
    """Move a finished folder to ``<path>.previous``; refuse to give up an unfinished one."""
    if not (path / MANIFEST).is_file():
        raise VersatuneError(
            f"{path} was begun with other inputs and is not finished: "
            f"{', '.join(changed)}. {advice}"
        )
    previous = path.with_name(f"{path.name}.previous")
    if previous.exists():
        if not (previous / INPUTS).is_file():
            raise VersatuneError(
                f"{previous} is where {path} would be kept, and was not made by versatune: move it."
            )
        _discard(previous)
    path.rename(previous)
    named = ", ".join(changed[:SHOWN]) + (
        f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    )
    logger.info("%s was made with other inputs (%s): kept as %s.", path, named, previous.name)


def _discard(path: Path) -> None:
    """Delete a folder of ours: out of the way in one step first, so that no half of it stays."""
    doomed = path.with_name(f".{path.name}.discarded")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed)
