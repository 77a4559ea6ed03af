"""Work that survives: folders that know what they were made from and whether they are whole.

A long stage writes into a :class:`WorkFolder`. Opening it with the same inputs finds what is
already there (the stage goes on, or is done); opening it with other inputs starts anew, or, for
what is dear, keeps what is finished and refuses to give up what is not. The manifest is written
last, so a folder with a valid manifest is complete. It holds a checksum of every file and one of
itself, so damage is found.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict

from versatune.errors import VersatuneError

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
INPUTS = "inputs.json"
CHECKSUM = "checksum"


def plain(value: Any) -> Any:
    """``value`` as JSON types; pydantic models are dumped, paths become strings."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = [plain(v) for v in value]
        return sorted(items) if isinstance(value, set | frozenset) else items
    return str(value) if isinstance(value, Path) else value


def fingerprint(value: Any) -> str:
    """16 hex digits that stand for ``value`` (anything :func:`plain` can turn into JSON)."""
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, read in blocks, as hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def folder_digest(path: Path) -> str:
    """16 hex digits that stand for the names and content of every file below ``path``."""
    return fingerprint({n: file_digest(path / n) for n in _files(path)})


def with_checksum(content: Mapping[str, Any]) -> dict[str, Any]:
    """``content`` and, as ``checksum``, what stands for it."""
    return {**content, CHECKSUM: fingerprint(content)}


def is_intact(content: Mapping[str, Any], *keys: str) -> bool:
    """Whether ``content`` holds these keys and is what :func:`with_checksum` made of them.

    Without a checksum, as files were written before there was one, it holds these keys alone.
    """
    rest = {key: value for key, value in content.items() if key != CHECKSUM}
    return set(rest) == set(keys) and content.get(CHECKSUM) in (None, fingerprint(rest))


def write_atomic(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` in one step: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_atomic(path, json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; a damaged one is a VersatuneError that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise VersatuneError(f"{path} can't be read ({error}); delete it and run again.") from error


@contextlib.contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Hold ``path`` (a lock file) while the block runs.

    Raises VersatuneError at once when another process holds it. The lock is the operating
    system's, so it ends with its holder, even one that was killed.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        lock.acquire(timeout=0)
    except Timeout:
        raise VersatuneError(
            f"another run is at work on {what} (lock {path}); wait for it or stop it."
        ) from None
    except OSError as error:
        raise VersatuneError(f"{path} can't be written: {error.strerror}.") from error
    try:
        yield
    finally:
        lock.release()


class FolderRef(BaseModel):
    """A reference to a finished folder: what passes between stages instead of its content."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    fingerprint: str
    """Stands for the inputs the folder was made from."""
    facts: dict[str, Any] = {}
    """Small results noted by the maker: domain names, counts, the best step."""

    @classmethod
    def load(cls, path: Path | str, *, verify: bool = True) -> Self:
        """Read the reference of a finished folder; see :func:`check` for what is verified."""
        path = Path(path)
        manifest = check(path) if verify else read_manifest(path)
        return cls(path=path, fingerprint=manifest["fingerprint"], facts=manifest["facts"])


def check(path: Path) -> dict[str, Any]:
    """The manifest of a finished folder, after comparing every file with its checksum.

    Raises VersatuneError when the folder is unfinished, or a file is missing or altered.
    """
    manifest = read_manifest(path)
    for name, digest in manifest["files"].items():
        file = path / name
        if not file.is_file() or file_digest(file) != digest:
            state = "was changed or damaged" if file.is_file() else "is missing"
            raise VersatuneError(
                f"{file} {state} since it was written; delete {path} and run again."
            )
    return manifest


def read_manifest(path: Path) -> dict[str, Any]:
    """``fingerprint``, ``files`` (name -> SHA-256) and ``facts`` of a finished folder, unchecked.

    Raises VersatuneError when the folder is unfinished or the manifest is damaged.
    """
    if not (path / MANIFEST).is_file():
        raise VersatuneError(f"{path} is not finished (no {MANIFEST}); run its stage again.")
    manifest = read_json(path / MANIFEST)
    if (
        not isinstance(manifest, dict)
        or not is_intact(manifest, "fingerprint", "files", "facts")
        or not isinstance(manifest["fingerprint"], str)
        or not all(isinstance(manifest[key], dict) for key in ("files", "facts"))
    ):
        raise VersatuneError(f"{path / MANIFEST} is damaged; delete {path} and run again.")
    return manifest


class WorkFolder:
    """A folder a stage works in; make it with :meth:`open`."""

    counts: ClassVar[dict[str, int]] = {"opened": 0, "sealed": 0}  # by this process

    def __init__(self, path: Path, inputs: Any, facts: dict[str, Any] | None) -> None:
        self.path = path
        self.inputs = inputs
        self.fingerprint = fingerprint(inputs)
        self._facts = facts

    @property
    def complete(self) -> bool:
        """Whether the work was finished and sealed with these very inputs."""
        return self._facts is not None

    @property
    def ref(self) -> FolderRef:
        """The reference to hand on. Only after :meth:`seal`, or when ``complete``."""
        if self._facts is None:
            raise RuntimeError(f"{self.path} is not sealed")
        return FolderRef(path=self.path, fingerprint=self.fingerprint, facts=self._facts)

    @classmethod
    def open(
        cls,
        path: Path | str,
        inputs: Mapping[str, Any],
        on_change: Literal["replace", "keep"] = "replace",
    ) -> Self:
        """Open ``path`` for work on ``inputs`` (parameters and fingerprints of what is read).

        - the same inputs, finished and undamaged: ``complete`` is true, ``ref`` is ready;
        - the same inputs, unfinished: what is there is kept, the caller goes on from it;
        - other inputs: ``replace`` empties the folder; ``keep`` moves a finished folder to
          ``<path>.previous`` (what lay there goes) and begins anew, and raises VersatuneError
          with the keys that differ when it is unfinished;
        - a folder that this function did not make and that is not empty is never touched:
          VersatuneError.
        """
        path = Path(path)
        wanted = plain(inputs)
        if path.exists() and not (path / INPUTS).is_file():
            # A process killed while it wrote its first file leaves that file's beginning.
            if not path.is_dir() or any(not _is_temporary(f) for f in path.iterdir()):
                raise VersatuneError(
                    f"{path} exists and was not made by versatune: move it or choose another path."
                )
        elif path.exists():
            try:
                found = read_json(path / INPUTS)
            except VersatuneError as error:
                raise VersatuneError(
                    f"{path / INPUTS} is damaged; delete {path} and run again."
                ) from error
            if found != wanted:
                if on_change == "keep":
                    _set_aside(path, difference(found, wanted))
                else:
                    _discard(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            write_json(path / INPUTS, wanted)
        except OSError as error:
            raise VersatuneError(f"{path} can't be written: {error.strerror}.") from error
        facts = None
        if (path / MANIFEST).is_file():
            try:
                facts = check(path)["facts"]
            except VersatuneError as error:
                logger.warning("%s Made again.", error)
                _discard(path)
                path.mkdir()
                write_json(path / INPUTS, wanted)
        WorkFolder.counts["opened"] += 1
        return cls(path, wanted, facts)

    def reopen(self) -> None:
        """Take the seal off, before a file of a finished folder is replaced: should the process be
        killed meanwhile, the folder is unfinished and not damaged."""
        self._facts = None
        (self.path / MANIFEST).unlink(missing_ok=True)

    def seal(self, **facts: Any) -> FolderRef:
        """Write the manifest, last of all: the folder is finished. Returns its reference."""
        self._facts = plain(facts)
        for left_over in filter(_is_temporary, list(self.path.rglob("*"))):
            left_over.unlink()
        names = [n for n in _files(self.path) if n not in (MANIFEST, INPUTS)]
        files = {name: file_digest(self.path / name) for name in names}
        manifest = {"fingerprint": self.fingerprint, "facts": self._facts, "files": files}
        write_json(self.path / MANIFEST, with_checksum(manifest))
        WorkFolder.counts["sealed"] += 1
        return self.ref


def difference(found: Any, wanted: Any, prefix: str = "") -> str:
    """The keys in which two JSON values differ, as ``key: old -> new``, joined by commas."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        parts = [
            difference(found.get(key, _ABSENT), wanted.get(key, _ABSENT), f"{prefix}{key}.")
            for key in sorted(found.keys() | wanted.keys())
            if found.get(key, _ABSENT) != wanted.get(key, _ABSENT)
        ]
        return ", ".join(parts)
    return f"{prefix.rstrip('.')}: {_short(found)} -> {_short(wanted)}"


def _set_aside(path: Path, changed: str) -> None:
    """Move a finished folder to ``<path>.previous``; refuse to give up an unfinished one."""
    if not (path / MANIFEST).is_file():
        raise VersatuneError(
            f"{path} was begun with other inputs and is not finished: {changed}. "
            "Set them back, choose another folder, or delete this one to start anew."
        )
    previous = path.with_name(f"{path.name}.previous")
    if previous.exists():
        if not (previous / INPUTS).is_file():
            raise VersatuneError(
                f"{previous} is where {path} would be kept, and was not made by versatune: move it."
            )
        _discard(previous)
    path.rename(previous)
    logger.info("%s was made with other inputs (%s): kept as %s.", path, changed, previous)


def _discard(path: Path) -> None:
    """Delete a folder of ours: out of the way in one step first, so that no half of it stays."""
    doomed = path.with_name(f".{path.name}.discarded")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed)


_ABSENT = object()
"""Stands for a key that isn't there, which is not the same as one that is null."""


def _short(value: Any) -> str:
    if value is _ABSENT:
        return "(not given)"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _is_temporary(path: Path) -> bool:
    """Whether this is what :func:`write_atomic` leaves when its process is killed."""
    return re.fullmatch(r"\..+\.\d+\.tmp", path.name) is not None


def _files(path: Path) -> list[str]:
    return sorted(f.relative_to(path).as_posix() for f in path.rglob("*") if f.is_file())
