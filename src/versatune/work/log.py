"""An append-only file of records, a line of JSON each, for what must not be asked for twice.

A line carries a checksum of itself, and its record is of a model that knows no other keys. A
process killed while it appends leaves the beginning of a line, which is left out, and the next
record has a line of its own; a line that was damaged later is found, told and left out. Lines from
before there were checksums are taken as they are.
"""

import json
import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

from versatune.artifacts import CHECKSUM, fingerprint, to_jsonable, with_checksum, write_atomic

logger = logging.getLogger(__name__)


T = TypeVar("T")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A line of a log."""

    line: str
    record: T | None
    """What was appended; None for a line that was cut off or damaged."""


class Log(Generic[T]):
    """A file that records are appended to. Safe to use from several threads.

    ``kind`` validates a record as it is read; with ``extra="forbid"``, else a damaged key is not
    found.
    """

    def __init__(self, path: Path, kind: TypeAdapter[T]) -> None:
        self.path = path
        self._kind = kind
        self._lock = threading.Lock()

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record, in one write. Raises OSError."""
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as handle:
                handle.seek(0, 2)
                start = b"\n" if handle.tell() and self._is_cut(handle) else b""
                handle.write(start + f"{encoded(record)}\n".encode())

    def entries(self) -> list[Entry[T]]:
        """All lines, in order; none when there is no file."""
        if not self.path.is_file():
            return []
        text = self.path.read_text(encoding="utf-8", errors="replace")
        return [Entry(line, self._decoded(line)) for line in text.split("\n") if line]

    def records(self) -> list[T]:
        """All sound records, in order; how many lines are not is told."""
        entries = self.entries()
        sound = [entry.record for entry in entries if entry.record is not None]
        if len(sound) < len(entries):
            logger.warning(
                "%s: %d of %d lines were cut off or damaged and are left out.",
                self.path,
                len(entries) - len(sound),
                len(entries),
            )
        return sound

    def rewrite(self, lines: Iterable[str]) -> None:
        """Replace the file by these lines, in one step; no lines: delete it. Raises OSError."""
        with self._lock:
            text = "".join(f"{line}\n" for line in lines)
            if text:
                write_atomic(self.path, text)
            else:
                self.path.unlink()

    def _decoded(self, line: str) -> T | None:
        try:
            found = json.loads(line)
            checksum = found.pop(CHECKSUM, None)
            sound = checksum in (None, fingerprint(found))
            return self._kind.validate_python(found) if sound else None
        except (ValueError, AttributeError, TypeError):  # no JSON, no mapping, another record
            return None

    @staticmethod
    def _is_cut(handle: Any) -> bool:
        handle.seek(-1, 2)
        return bool(handle.read(1) != b"\n")


def encoded(record: Mapping[str, Any]) -> str:
    """A record as its line."""
    return json.dumps(with_checksum(to_jsonable(record)), ensure_ascii=False)
