"""Files of text as bytes: decompressed on the way, checked to be text, read line by line.

A line ends at a line feed and nowhere else: other line separators (U+2028, U+0085, a form feed)
are characters of the text.
"""

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import pyarrow as pa

from versatune.errors import VersatuneError

COMPRESSED = (".gz", ".zst", ".zstd", ".bz2", ".xz")
"""Suffixes of compressed files; the suffix before them says the format inside."""

PEEK = 1 << 16
"""Bytes looked at before reading."""

_HEADS = {
    codecs.BOM_UTF32_LE: "is UTF-32, not UTF-8 text; convert it first",  # before UTF-16
    codecs.BOM_UTF16_LE: "is UTF-16, not UTF-8 text; convert it first",
    codecs.BOM_UTF16_BE: "is UTF-16, not UTF-8 text; convert it first",
    b"PK\x03\x04": "is a zip archive or an Office document, not UTF-8 text; convert it first",
    b"PAR1": "is a Parquet file, not text; set the source's `format` to parquet",
    b"%PDF": "is a PDF, not text; convert it first",
    b"version https://git-lfs": "is a Git LFS pointer, not the data; fetch it with `git lfs pull`",
}
"""First bytes of files that are taken for text by mistake."""


@contextlib.contextmanager
def open_text(path: Path) -> Iterator[io.BufferedReader]:
    """The file's bytes behind a byte order mark, decompressed whatever its suffix says.

    Raises VersatuneError when it is no text, or when it can't be read to its end.
    """
    kind = None
    try:
        with path.open("rb") as raw, _OPEN[kind := _compression(raw)](raw) as plain:
            handle = io.BufferedReader(cast(Any, plain), PEEK)
            _refuse_binary(path, handle)
            yield handle
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        told = f"can't be read to its end as {kind}" if kind else "can't be read"
        raise VersatuneError(f"{path} {told}: {error}") from error


def lines(handle: BinaryIO, limit: int) -> Iterator[tuple[int, bytes | None]]:
    """(line number, line) pairs; None for a line above the limit, which is skipped unread."""
    number = 0
    while line := handle.readline(limit + 1):
        number += 1
        if len(line) > limit and not line.endswith(b"\n"):
            while (rest := handle.readline(limit)) and not rest.endswith(b"\n"):
                pass
            yield number, None
        else:
            yield number, line


def refuse_carriage_returns(path: Path, handle: io.BufferedReader) -> None:
    """Refuse a file of lines that all end in a bare carriage return: it would be one line."""
    head = handle.peek(PEEK).strip()
    if b"\r" in head and b"\n" not in head:
        raise VersatuneError(
            f"{path}: its lines end in a carriage return without a line feed; convert them "
            "first (`tr '\\r' '\\n'`)."
        )


def refuse_pointer(path: Path) -> None:
    """Refuse a Git LFS pointer, left by a clone that was made without Git LFS."""
    with path.open("rb") as handle:
        head = b"version https://git-lfs"
        if handle.read(len(head)) == head:
            raise VersatuneError(f"{path} {_HEADS[head]}.")


_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz"}
_OPEN: dict[str | None, Callable[[Any], contextlib.AbstractContextManager[Any]]] = {
    "gzip": lambda raw: gzip.GzipFile(fileobj=raw),
    "zstd": lambda raw: pa.CompressedInputStream(raw, "zstd"),
    "bz2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
    None: contextlib.nullcontext,
}


def _compression(raw: IO[bytes]) -> str | None:
    """How a file that was just opened is compressed."""
    head = raw.read(8)
    raw.seek(0)
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


def _refuse_binary(path: Path, handle: io.BufferedReader) -> None:
    head = handle.peek(PEEK)
    for start, what in _HEADS.items():
        if head.startswith(start):
            raise VersatuneError(f"{path} {what}.")
    if b"\x00" in head[:8192]:
        line = head[: head.index(b"\x00")].count(b"\n") + 1
        raise VersatuneError(
            f"{path}:{line} holds a NUL byte, so this is a binary file, not text (or UTF-16: then "
            "convert it first)."
        )
    if head.startswith(codecs.BOM_UTF8):
        handle.read(len(codecs.BOM_UTF8))
