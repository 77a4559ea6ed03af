"""An append-only file of records, a line of JSON each, for what must not be asked for twice.

A line carries a checksum of itself. A process killed while it appends leaves the beginning of a
line, which is left out, and the next record has a line of its own; a line that was damaged later is
reported and left out.
"""

import json
import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from versatune.artifacts import CHECKSUM, fingerprint, to_jsonable, with_checksum, write_atomic

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """A line of a log."""

    line: str
    record: dict[str, Any] | None
    """What was appended; None for a line that was cut off or damaged."""


class Log:
    """A file that records are appended to. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record, in one write. Raises OSError."""
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as handle:
                start = b""
                if handle.seek(0, 2):
                    handle.seek(-1, 2)
                    start = b"\n" if handle.read(1) != b"\n" else b""  # the last line was cut off
                handle.write(start + f"{encoded(record)}\n".encode())

    def entries(self) -> list[Entry]:
        """All lines, in order; none when there is no file."""
        if not self.path.is_file():
            return []
        text = self.path.read_text(encoding="utf-8", errors="replace")
        return [Entry(line, _decoded(line)) for line in text.split("\n") if line]

    def records(self) -> list[dict[str, Any]]:
        """All valid records, in order; the number of damaged lines is logged."""
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


def _decoded(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    if not isinstance(found, dict) or found.pop(CHECKSUM, None) != fingerprint(found):
        return None
    return found


def encoded(record: Mapping[str, Any]) -> str:
    """A record as its line."""
    return json.dumps(with_checksum(to_jsonable(record)), ensure_ascii=False)
