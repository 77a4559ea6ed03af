"""Raw rows from files: one row, or the reason why there is none, at a time.

Every reader yields a :class:`Row` or a :class:`RejectedRow` for each row of its file, with the line
(or row number) it stands at, and holds a bounded part of the file in memory. What makes a whole
file unreadable (missing, binary, cut off) is a VersatuneError; what spoils one row is a
``RejectedRow``.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from versatune.data.config import Format
from versatune.data.delimited import read_delimited, refuse_doubles
from versatune.data.json_files import DoubleKeyError, is_wrapper, no_doubles, read_json, row_of
from versatune.data.rows import RejectedRow, Row
from versatune.data.streams import (
    PEEK,
    lines,
    open_text,
    refuse_carriage_returns,
    refuse_pointer,
)
from versatune.errors import VersatuneError

_OVER_LINES = re.compile(rb"\s*(\[\s*[\[{\]]|\{\s*\n\s*[\"}])")
"""How a file begins that is JSON over many lines, whatever its suffix says: what stands alone on a
line can be no row, and goes on in the next."""

NO_COLUMNS: Mapping[str, str] = {}


def read(
    path: Path,
    kind: Format,
    *,
    split: str,
    limit: int,
    columns: Mapping[str, str] = NO_COLUMNS,
) -> Iterator[Row | RejectedRow]:
    """The rows of one file or saved folder.

    ``limit``: bytes of the longest line accepted; ``split`` and ``columns``: the source's.
    """
    if kind == "dataset":
        yield from read_saved(path, split)
    elif kind == "parquet":
        yield from _read_parquet(path)
    else:
        with open_text(path) as handle:
            if kind in ("csv", "tsv", "jsonl", "lines"):
                refuse_carriage_returns(path, handle)
            if kind in ("csv", "tsv"):
                yield from read_delimited(path, handle, limit, "\t" if kind == "tsv" else ",")
            elif kind == "text":
                yield _read_text(path, handle, limit)
            elif kind == "lines":
                yield from _read_documents(path, handle, limit)
            elif _is_by_line(handle.peek(PEEK), kind, columns):
                yield from _read_lines(path, handle, limit)
            else:
                yield from read_json(path, handle, limit, split, columns)


def read_saved(path: Path, split: str) -> Iterator[Row | RejectedRow]:
    """The rows of a folder written by ``datasets``' ``save_to_disk``."""
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:
        raise VersatuneError(f"{path} can't be read as a saved data set: {error}") from error
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            raise VersatuneError(
                f"{path} has no split {split!r}; its splits are {', '.join(found)}."
            )
        found = found[split]
    yield from read_dataset(found, str(path))


def read_dataset(dataset: Any, label: str) -> Iterator[Row | RejectedRow]:
    """The rows of a loaded ``datasets.Dataset`` or of a stream, a thousand at a time."""
    number = 0
    try:
        for batch in dataset.with_format(None).iter(batch_size=1000):
            for values in zip(*batch.values(), strict=True):
                number += 1
                yield Row(f"{label}:{number}", dict(zip(batch, values, strict=True)))
    except (pa.ArrowException, OSError) as error:
        raise VersatuneError(f"{label} is damaged near row {number}: {error}") from error


def parse(where: str, line: bytes) -> Iterator[Row | RejectedRow]:
    """The row in one line of JSON, or the rows where the line is a list of them."""
    values = _value(where, line)
    if isinstance(values, RejectedRow):
        yield values
        return
    rows = [row_of(where, values)]
    if isinstance(values, list) and not isinstance(rows[0], Row):
        inner = [row_of(where, value) for value in values]
        rows = inner if any(isinstance(row, Row) for row in inner) else rows
    yield from rows


def _value(where: str, line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8"), object_pairs_hook=no_doubles)
    except UnicodeDecodeError as error:
        return RejectedRow(
            where, "not_utf8", f"byte {line[error.start]:#04x} at column {error.start + 1}"
        )
    except DoubleKeyError as error:
        return RejectedRow(where, "duplicate_key", str(error))
    except RecursionError:
        return RejectedRow(where, "too_deep", "JSON nested too deeply")
    except ValueError as error:
        return RejectedRow(where, "bad_json", str(error))


def _is_by_line(head: bytes, kind: Format, columns: Mapping[str, str]) -> bool:
    """Whether a JSON file has an object a line, by its beginning."""
    found = [line.strip() for line in head.split(b"\n") if line.strip()]
    whole = [_is_whole(line) for line in found]
    if len(found) > 1 and (whole[0] or sum(whole) > len(found) / 2):
        return True
    if _OVER_LINES.match(head):
        return False
    if kind == "jsonl":
        return not (len(found) == 1 and is_wrapper(_value("", found[0]), columns))
    return not found or not found[0].startswith((b"{", b"[")) or found[0] == b"{"


def _is_whole(line: bytes) -> bool:
    """Whether a line is a JSON value, not a part of one that goes on."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _read_lines(path: Path, handle: BinaryIO, limit: int) -> Iterator[Row | RejectedRow]:
    for number, line in lines(handle, limit):
        where = f"{path}:{number}"
        if line is None:
            yield RejectedRow(where, "line_too_long", f"longer than {limit} bytes")
        elif line.strip():
            yield from parse(where, line.rstrip(b"\r\n"))


def _read_documents(path: Path, handle: BinaryIO, limit: int) -> Iterator[Row | RejectedRow]:
    """A document a line. Undecodable bytes become lone surrogates, as in CSV."""
    for number, line in lines(handle, limit):
        where = f"{path}:{number}"
        if line is None:
            yield RejectedRow(where, "line_too_long", f"longer than {limit} bytes")
        elif line.strip():
            text = line.rstrip(b"\r\n").decode("utf-8", errors="surrogateescape")
            yield Row(where, {"text": text})


def _read_text(path: Path, handle: BinaryIO, limit: int) -> Row | RejectedRow:
    """The whole file as one document, with line ends as Unix has them."""
    content = handle.read(limit + 1)
    if len(content) > limit:
        return RejectedRow(
            f"{path}:1",
            "line_too_long",
            f"longer than {limit} bytes: raise ingest.max_line_bytes, or set the source's `format` "
            "to lines if each line is a document",
        )
    text = content.decode("utf-8", errors="surrogateescape").replace("\r\n", "\n")
    return Row(f"{path}:1", {"text": text})


def _read_parquet(path: Path) -> Iterator[Row | RejectedRow]:
    number = 0
    try:
        refuse_pointer(path)
        with pq.ParquetFile(path) as file:
            _refuse_double_fields(str(path), list(file.schema_arrow))
            for batch in file.iter_batches(batch_size=1000):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(f"{path}:{number}", values)
    except (pa.ArrowException, OSError) as error:
        raise VersatuneError(f"{path} can't be read as Parquet: {error}") from error


def _refuse_double_fields(where: str, fields: list[Any]) -> None:
    """Refuse columns, and fields within columns, that are called alike."""
    refuse_doubles(where, [field.name for field in fields])
    for field in fields:
        inner = field.type
        while pa.types.is_list(inner) or pa.types.is_large_list(inner):
            inner = inner.value_type
        if pa.types.is_struct(inner):
            _refuse_double_fields(f"{where}: {field.name}", list(inner))
