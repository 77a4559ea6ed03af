"""CSV and TSV: the delimiter found out, the header checked, records with their line."""

import contextlib
import csv
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from versatune.data.rows import Bad, Row
from versatune.data.streams import lines
from versatune.errors import VersatuneError

DELIMITERS = (",", ";", "\t", "|")
SAMPLE = 20
"""Records that a delimiter is judged by."""

_SEP = re.compile(rb"\s*\"?sep=(.)\"?\r?\n")
"""The line that spreadsheet programs read the delimiter from."""


def read_delimited(
    path: Path, handle: io.BufferedReader, limit: int, preferred: str
) -> Iterator[Row | Bad]:
    """The records of a file with a header line; ``preferred``: the delimiter the suffix stands for.

    Undecodable bytes become lone surrogates, which the row checks reject later. A record of
    several lines of which one is too long is no row: a part of its text would be missing. Raises
    VersatuneError when the header can't be read or names a column twice.
    """
    first = 1
    if said := _SEP.match(handle.peek()):
        handle.readline()
        delimiter, first = said[1].decode("latin-1"), 2
    else:
        delimiter = find_delimiter(handle.peek(), preferred)
    skipped: list[int] = []
    csv.field_size_limit(limit)
    reader = csv.reader(_texts(handle, limit, skipped), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise VersatuneError(f"{path}: its header line can't be read: {error}.") from None
    if skipped:
        raise VersatuneError(f"{path}: its header is longer than ingest.max_line_bytes ({limit}).")
    refuse_doubles(f"{path}:{first}", [name for name in header if name])
    if not header:
        return
    while True:
        before = reader.line_num + first - 1
        skipped.clear()
        try:
            record = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            for number in range(before + 1, reader.line_num + first):
                yield Bad(f"{path}:{number}", "bad_csv", str(error))
            continue
        where = f"{path}:{before + 1}"
        if skipped:
            for number in skipped:
                at = number + first - 1
                yield Bad(f"{path}:{at}", "line_too_long", f"longer than {limit} bytes")
        elif len(record) == len(header):
            yield Row(where, dict(zip(header, record, strict=True)))
        elif record:
            yield Bad(where, "bad_csv", f"{len(record)} fields, the header has {len(header)}")


def find_delimiter(head: bytes, preferred: str) -> str:
    """The delimiter by which most of the first records have as many fields as the header.

    ``preferred`` where several are alike, or where none divides the header.
    """
    text = head.decode("utf-8", errors="replace")
    text = text[: text.rfind("\n") + 1] or text

    def fits(delimiter: str) -> tuple[int, int, bool]:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        records: list[list[str]] = []
        with contextlib.suppress(csv.Error):  # what was read up to there decides
            records.extend(itertools.islice(reader, SAMPLE + 1))
        width = len(records[0]) if records else 0
        if width < 2:
            return 0, 0, delimiter == preferred
        return sum(len(r) == width for r in records[1:]), width, delimiter == preferred

    return max(DELIMITERS, key=fits)


def refuse_doubles(where: str, columns: Sequence[str]) -> None:
    """Raise VersatuneError when a column stands twice: one of the two would silently win."""
    for name in columns:
        if (times := columns.count(name)) > 1:
            raise VersatuneError(
                f"{where}: the header names the column {name!r} {_times(times)}; rename or remove "
                "all but one."
            )


def _times(number: int) -> str:
    return "twice" if number == 2 else f"{number} times"


def _texts(handle: BinaryIO, limit: int, skipped: list[int]) -> Iterator[str]:
    for number, line in lines(handle, limit):
        if line is None:
            skipped.append(number)
            yield "\n"
        else:
            yield line.decode("utf-8", errors="surrogateescape")
