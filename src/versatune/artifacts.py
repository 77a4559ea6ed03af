"""Values and files: fingerprints, checksums, atomic writes, locks, and finished folders.

A finished folder has a manifest, written last. It holds a checksum of every file and one of
itself, so damage is found. :mod:`versatune.work` makes such folders.
"""

import contextlib
import datetime
import functools
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout
from pydantic import BaseModel

from versatune.errors import VersatuneError

LARGE = 1 << 26
"""Files of at least this many bytes are large: their digests are cached while they are unchanged.
"""
MANIFEST = "manifest.json"
INPUTS = "inputs.json"
CHECKSUM = "checksum"


def to_jsonable(value: Any) -> Any:
    """``value`` as JSON types; pydantic models are dumped, paths become strings."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(k): to_jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = [to_jsonable(v) for v in value]
        return sorted(items) if isinstance(value, set | frozenset) else items
    return str(value) if isinstance(value, Path) else value


def fingerprint(value: Any) -> str:
    """A fingerprint of 16 hex digits for ``value`` (anything :func:`to_jsonable` can turn into
    JSON)."""
    text = json.dumps(to_jsonable(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def now() -> str:
    """The time here, to the second, with its zone."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, read in blocks, as hex.

    A large file is read once a process, and again when it was written since: every stage of a run
    looks at a store, which may be hundreds of gigabytes.
    """
    found = path.stat()
    if found.st_size < LARGE:
        return _digest(path)
    return _digest_once(path.absolute(), found.st_ino, found.st_size, found.st_mtime_ns)


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@functools.lru_cache(maxsize=1 << 16)
def _digest_once(path: Path, *_: int) -> str:
    return _digest(path)


def folder_digest(path: Path) -> str:
    """A fingerprint of 16 hex digits for the names and content of every file below ``path``."""
    return fingerprint({n: file_digest(path / n) for n in files_below(path)})


def with_checksum(content: Mapping[str, Any]) -> dict[str, Any]:
    """``content`` with its fingerprint as ``checksum``."""
    return {**content, CHECKSUM: fingerprint(content)}


def is_intact(content: Mapping[str, Any], *keys: str) -> bool:
    """Whether ``content`` holds these keys and is what :func:`with_checksum` made of them.

    Without a checksum, as files were written before there was one, it holds only these keys.
    """
    rest = {key: value for key, value in content.items() if key != CHECKSUM}
    return set(rest) == set(keys) and content.get(CHECKSUM) in (None, fingerprint(rest))


def temporary_beside(path: Path) -> Path:
    """The temporary file that will replace ``path``; no other process or machine writes there."""
    return path.with_name(f".{path.name}.{uuid.uuid4().int}.tmp")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write in the block, which then takes the place of ``path`` in one step.

    A reader sees the old file or the new one. What a killed process leaves :func:`is_temporary`
    knows.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` in one step."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_atomic(path, json.dumps(to_jsonable(value), indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; a damaged one is a VersatuneError that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise VersatuneError(f"{path} can't be read ({error}); delete it and run again.") from error


@contextlib.contextmanager
def exclusive(path: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold ``path`` (a lock file) while the block runs.

    Raises VersatuneError at once when another process holds it, or waits for it. The lock is the
    operating system's, so it ends with its holder, even one that was killed.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise VersatuneError(
            f"another run is working on {what} (lock {path}); wait for it or stop it."
        ) from None
    except OSError as error:
        raise VersatuneError(f"{path} can't be written: {error.strerror}.") from error
    try:
        yield
    finally:
        lock.release()


class FolderRef(BaseModel, frozen=True, extra="forbid"):
    """A reference to a finished folder: what passes between stages instead of its content."""

    path: Path
    fingerprint: str
    """Stands for the inputs the folder was made from."""
    metadata: dict[str, Any] = {}
    """Small results from the stage: domain names, counts, the best step. The manifest's key for it
    is ``facts``."""

    @classmethod
    def load(cls, path: Path | str, *, verify: bool = True) -> Self:
        """Read the reference of a finished folder; see :func:`check` for what is verified."""
        path = Path(path)
        manifest = check(path) if verify else read_manifest(path)
        return cls(path=path, fingerprint=manifest["fingerprint"], metadata=manifest["facts"])


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


def differences(found: Any, wanted: Any, prefix: str = "") -> list[str]:
    """The keys in which two JSON values differ, each as ``key: old -> new``."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return [
            part
            for key in sorted(found.keys() | wanted.keys())
            if found.get(key, _ABSENT) != wanted.get(key, _ABSENT)
            for part in differences(
                found.get(key, _ABSENT), wanted.get(key, _ABSENT), f"{prefix}{key}."
            )
        ]
    return [f"{prefix.rstrip('.')}: {_short(found)} -> {_short(wanted)}"]


_ABSENT = object()
"""Stands for a key that isn't there, which is not the same as one that is null."""


def _short(value: Any) -> str:
    if value is _ABSENT:
        return "(not given)"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def is_temporary(path: Path) -> bool:
    """Whether this is what :func:`replacing` leaves when its process is killed."""
    return re.fullmatch(r"\..+\.\d+\.tmp", path.name) is not None


def files_below(path: Path) -> list[str]:
    return sorted(f.relative_to(path).as_posix() for f in path.rglob("*") if f.is_file())
