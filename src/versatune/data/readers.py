"""Raw rows from files: one row, or the reason why there is none, at a time.

Every reader yields a :class:`Row` or a :class:`RejectedRow` for each row of its file, with the line
(or row number) it stands at, and holds a bounded part of the file in memory. What makes a whole
file unreadable (missing, binary, cut off) is a VersatuneError; what spoils one row is a
``RejectedRow``.
"""

import codecs
import contextlib
import importlib
import io
import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from versatune.data.columns_of_json import is_by_column
from versatune.data.delimited import read_delimited, refuse_doubles
from versatune.data.file_formats import FORMATS, Asked, Format
from versatune.data.json_files import DoubleKeyError, is_wrapper, no_doubles, read_json, row_of
from versatune.data.rows import RejectedRow, Row
from versatune.data.shapes import fits
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


def read(path: Path, kind: Format, asked: Asked) -> Iterator[Row | RejectedRow]:
    """The rows of one file or saved folder."""
    module, _, name = FORMATS[kind].reader.partition(":")
    yield from getattr(importlib.import_module(f"versatune.data.{module}"), name)(path, asked)


def read_jsonl(path: Path, asked: Asked, by_line: bool = True) -> Iterator[Row | RejectedRow]:
    """JSON with an object a line, or over many lines all the same."""
    with _open_lines(path) if by_line else open_text(path) as handle:
        if _is_by_line(handle.peek(PEEK), by_line, asked.columns):
            yield from _read_lines(path, handle, asked.limit)
        else:
            yield from read_json(path, handle, asked.limit, asked.split, asked.columns)


def read_csv(path: Path, asked: Asked, delimiter: str = ",") -> Iterator[Row | RejectedRow]:
    """Records with a header, divided by commas or what is found to divide them."""
    with _open_lines(path) as handle:
        yield from read_delimited(path, handle, asked.limit, delimiter)


read_json_file = partial(read_jsonl, by_line=False)
read_tsv = partial(read_csv, delimiter="\t")


@contextlib.contextmanager
def _open_lines(path: Path) -> Iterator[io.BufferedReader]:
    with open_text(path) as handle:
        refuse_carriage_returns(path, handle)
        yield handle


def read_saved(path: Path, asked: Asked) -> Iterator[Row | RejectedRow]:
    """The rows of a folder written by ``datasets``' ``save_to_disk``."""
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:
        raise VersatuneError(f"{path} can't be read as a saved data set: {error}") from error
    if isinstance(found, datasets.DatasetDict):
        if asked.split not in found:
            raise VersatuneError(
                f"{path} has no split {asked.split!r}; its splits are {', '.join(found)}."
            )
        found = found[asked.split]
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
        # Files that were put behind each other may each begin with a byte order mark.
        text = line.removeprefix(codecs.BOM_UTF8).decode("utf-8")
        return json.loads(text, object_pairs_hook=no_doubles)
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


def _is_by_line(head: bytes, named: bool, columns: Mapping[str, str]) -> bool:
    """Whether a JSON file has an object a line, by its beginning; ``named``: its suffix says so."""
    found = [line.strip() for line in head.split(b"\n") if line.strip()]
    whole = [_is_whole(line) for line in found]
    if len(found) > 1 and (whole[0] or sum(whole) > len(found) / 2):
        return True
    if _OVER_LINES.match(head):
        return False
    if named:
        value = _value("", found[0]) if len(found) == 1 else None
        return not (is_wrapper(value, columns) or is_by_column(value, columns))
    return not found or not found[0].startswith((b"{", b"[")) or found[0] == b"{"


def _holds_rows(head: bytes, columns: Mapping[str, str]) -> bool:
    """Whether a file begins with a row in JSON that fits a shape."""
    first = head.lstrip().removeprefix(b"[").lstrip()
    try:
        value, _ = json.JSONDecoder().raw_decode(first.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and bool(fits(value, columns))


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


def read_documents(path: Path, asked: Asked) -> Iterator[Row | RejectedRow]:
    """A document a line. Undecodable bytes become lone surrogates, as in CSV."""
    with _open_lines(path) as handle:
        for number, line in lines(handle, asked.limit):
            where = f"{path}:{number}"
            if line is None:
                yield RejectedRow(where, "line_too_long", f"longer than {asked.limit} bytes")
            elif line.strip():
                text = line.rstrip(b"\r\n").decode("utf-8", errors="surrogateescape")
                yield Row(where, {"text": text})


def read_text(path: Path, asked: Asked) -> Iterator[Row | RejectedRow]:
    """The whole file as one document, with line ends as Unix has them."""
    with open_text(path) as handle:
        if not asked.said and _holds_rows(handle.peek(PEEK), asked.columns):
            raise VersatuneError(
                f"{path}: its suffix says text, and it holds JSON rows; set the source's `format` "
                "to jsonl or json (or to text, if this is a document)."
            )
        content = handle.read(asked.limit + 1)
    if len(content) > asked.limit:
        yield RejectedRow(
            f"{path}:1",
            "line_too_long",
            f"longer than {asked.limit} bytes: raise ingest.max_line_bytes, or set the source's "
            "`format` to lines if each line is a document",
        )
        return
    text = content.decode("utf-8", errors="surrogateescape").replace("\r\n", "\n")
    yield Row(f"{path}:1", {"text": text})


def read_parquet(path: Path, _asked: Asked) -> Iterator[Row | RejectedRow]:
    """The rows of a Parquet file."""
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
