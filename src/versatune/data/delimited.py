"""CSV and TSV: detect delimiter and quoting, check the header, yield records with their line."""

import csv
import io
import re
import string
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from versatune.data.rows import RejectedRow, Row
from versatune.data.streams import lines
from versatune.errors import VersatuneError

DELIMITERS = (",", ";", "\t", "|")
RAW: dict[str, Any] = {"quoting": csv.QUOTE_NONE}
"""Tab-separated values whose quotes are letters like others."""
ESCAPED: dict[str, Any] = {"doublequote": False, "escapechar": "\\"}
"""Quotes within quotes behind a backslash."""
QUOTINGS: tuple[dict[str, Any], ...] = ({}, ESCAPED, RAW)
"""Quoting as in spreadsheets, as in Spark and MySQL, and none."""
SAMPLE = 20
"""Number of records used to detect the dialect."""

_BLANKS = f"{string.whitespace}\ufeff"
"""What may stand around a column's name: with blanks the byte order mark of a file in the midst."""
_JSON = re.compile(rb'\s*(\[\s*[\[{]|\{\s*")')
"""How JSON begins."""
_QUOTED_LATE = re.compile(r' +"(?:[^"]|"")*"')
"""A quoted field behind a blank, which a reader of CSV takes for a letter of the field."""

_SEP = re.compile(rb"\s*\"?sep=(.)\"?\r?\n")
"""The line that spreadsheet programs read the delimiter from."""


def read_delimited(
    path: Path, handle: io.BufferedReader, limit: int, preferred: str
) -> Iterator[Row | RejectedRow]:
    """The records of a file with a header line; ``preferred``: the delimiter the suffix stands for.

    Undecodable bytes become lone surrogates, which the row checks reject later. A record of
    several lines of which one is too long is no row: a part of its text would be missing. Nor is
    the header once more, where files were put behind each other. Raises VersatuneError when the
    header can't be read or names a column twice.
    """
    if _JSON.match(handle.peek()):
        raise VersatuneError(
            f"{path} is JSON, not delimited values; set the source's `format` to json or jsonl."
        )
    first = 1
    if said := _SEP.match(handle.peek()):
        handle.readline()
        dialect: dict[str, Any] = {"delimiter": said[1].decode("latin-1")}
        first = 2
    else:
        dialect = find_dialect(handle.peek(), preferred)
    skipped: list[int] = []
    csv.field_size_limit(limit)
    reader = csv.reader(_texts(handle, limit, skipped), strict=True, **dialect)
    try:
        header = [name.strip(_BLANKS) for name in next(reader, [])]
    except csv.Error as error:
        raise VersatuneError(f"{path}: its header line can't be read: {error}.") from None
    if skipped:
        raise VersatuneError(f"{path}: its header is longer than ingest.max_line_bytes ({limit}).")
    refuse_doubles(f"{path}:{first}", [name for name in header if name])
    if not header:
        return
    folded = [name.casefold() for name in header]
    while True:
        before = reader.line_num + first - 1
        skipped.clear()
        try:
            record = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            for number in range(before + 1, reader.line_num + first):
                yield RejectedRow(f"{path}:{number}", "bad_csv", str(error))
            continue
        where = f"{path}:{before + 1}"
        if skipped:
            for number in skipped:
                at = number + first - 1
                yield RejectedRow(f"{path}:{at}", "line_too_long", f"longer than {limit} bytes")
        elif [field.strip(_BLANKS).casefold() for field in record] == folded:
            yield RejectedRow(where, "header_again", "the header line repeated")
        elif len(record) == len(header):
            yield Row(where, dict(zip(header, record, strict=True)))
        elif record:
            yield RejectedRow(
                where, "bad_csv", f"{len(record)} fields, the header has {len(header)}"
            )


def find_dialect(head: bytes, preferred: str) -> dict[str, Any]:
    """How most of the first records have as many fields as the header: arguments of ``csv.reader``.

    Where several are alike, fields are quoted as spreadsheet programs do it, and ``preferred``
    divides them; it is taken too where nothing divides the header.
    """
    text = head.decode("utf-8", errors="replace")
    text = text[: text.rfind("\n") + 1] or text
    found = [
        {"delimiter": delimiter, **quoting}
        for quoting in QUOTINGS
        for delimiter in sorted(DELIMITERS, key=lambda delimiter: delimiter != preferred)
        if delimiter == "\t" or quoting is not RAW
        if quoting is not ESCAPED or _closes_fields(text, delimiter)
    ]

    def fits(dialect: dict[str, Any]) -> tuple[float, int]:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True, **dialect)
        records: list[list[str]] = []
        broken = 0
        while len(records) + broken <= SAMPLE:
            try:
                records.append(next(reader))
            except StopIteration:
                break
            except csv.Error:
                broken += 1
        width = len(records[0]) if records else 0
        if width < 2:
            return 0.0, 0
        alike = sum(len(record) == width for record in records[1:])
        return alike / max(1, len(records) - 1 + broken), width

    best = max(found, key=fits)
    return {**best, "skipinitialspace": True} if _quotes_late(text, best) else best


def _closes_fields(text: str, delimiter: str) -> bool:
    """Whether each quote that is not escaped ends its field; ``csv`` would drop others unseen."""
    quoted = re.compile(rf'(?<![^\n{re.escape(delimiter)}])"(?:[^"\\]|\\.)*"', re.DOTALL)
    return all(
        text[found.end() : found.end() + 1] in ("", delimiter, "\r", "\n")
        for found in quoted.finditer(text)
    )


def _quotes_late(text: str, dialect: dict[str, Any]) -> bool:
    """Whether fields are quoted behind a blank: ``name, "a, b"``."""
    delimiter = str(dialect["delimiter"])
    if dialect.get("quoting") == csv.QUOTE_NONE or f'{delimiter} "' not in text:
        return False
    spaced = {**dialect, "skipinitialspace": True}
    plain, other = (list(csv.reader(io.StringIO(text, newline=""), **d)) for d in (dialect, spaced))
    width = len(plain[0])
    fields = [f for record in plain[1:] if len(record) == width for f in record]
    whole = any(_QUOTED_LATE.fullmatch(field) for field in fields)
    return whole or sum(len(r) == width for r in other) > sum(len(r) == width for r in plain)


def refuse_doubles(where: str, columns: Sequence[str]) -> None:
    """Raise VersatuneError when a column appears twice: one of the two would silently win."""
    for name in columns:
        if (times := columns.count(name)) > 1:
            often = "twice" if times == 2 else f"{times} times"
            raise VersatuneError(
                f"{where}: the header names the column {name!r} {often}; rename or remove all but "
                "one."
            )


def _texts(handle: BinaryIO, limit: int, skipped: list[int]) -> Iterator[str]:
    for number, line in lines(handle, limit):
        if line is None:
            skipped.append(number)
            yield "\n"
        else:
            yield line.decode("utf-8", errors="surrogateescape")
