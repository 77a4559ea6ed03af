"""Raw rows from files: one row, or the reason why there is none, at a time.

Every reader yields a :class:`Row` or a :class:`Bad` for each row of its file, with the line (or
row number) it stands at, and holds a bounded part of the file in memory. What makes a whole file
unreadable (missing, binary, cut off) is a VersatuneError; what spoils one row is a ``Bad``.
"""

import codecs
import csv
import glob
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from versatune.data.config import Format, Source
from versatune.errors import VersatuneError

SUFFIXES: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".parquet": "parquet",
}

_HEADS = {
    codecs.BOM_UTF16_LE: "is UTF-16",
    codecs.BOM_UTF16_BE: "is UTF-16",
    b"\x1f\x8b": "is compressed with gzip",
    b"PK\x03\x04": "is a zip archive or an Office document",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd",
    b"PAR1": "is a Parquet file",
}
"""First bytes of files that are taken for text by mistake."""


@dataclass(frozen=True)
class Row:
    """One row as the file holds it."""

    where: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Bad:
    """A row that can't be used."""

    where: str
    reason: str
    detail: str


def files_of(source: Source) -> list[tuple[Path, Format]]:
    """The files of a ``path`` source with their formats, globs expanded, in name order.

    Raises VersatuneError when nothing is there or the format can't be told.
    """
    assert source.path is not None
    path = Path(source.path)
    if path.exists():
        found = [path]
    else:
        # not Path.glob, which takes no absolute patterns
        found = sorted(Path(p) for p in glob.glob(source.path, recursive=True))  # noqa: PTH207
    if not found:
        raise VersatuneError(f"{source.path}: there is no such file.")
    return [(file, source.format or _format(file)) for file in found]


def read(path: Path, kind: Format, *, split: str, limit: int) -> Iterator[Row | Bad]:
    """The rows of one file or saved folder. ``limit``: bytes of the longest line accepted."""
    if kind == "dataset":
        yield from read_saved(path, split)
    elif kind == "parquet":
        yield from _read_parquet(path)
    else:
        with path.open("rb") as handle:
            _refuse_binary(path, handle)
            if kind == "csv":
                yield from _read_csv(path, handle, limit)
            elif kind == "json" and _first_char(handle) == b"[":
                yield from _read_array(path, handle, limit)
            else:
                yield from _read_lines(path, handle, limit)


def read_saved(path: Path, split: str) -> Iterator[Row | Bad]:
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


def read_hub(source: Source) -> Iterator[Row | Bad]:
    """The rows of a data set on the hub. Data files alone are read: no code of it is run."""
    import datasets

    try:
        found = datasets.load_dataset(
            source.hub, source.name, split=source.split, revision=source.revision
        )
    except Exception as error:
        raise VersatuneError(
            f"the hub data set {source.hub!r} (split {source.split!r}) can't be read: "
            f"{type(error).__name__}: {error}"
        ) from error
    yield from read_dataset(found, source.label)


def read_dataset(dataset: Any, label: str) -> Iterator[Row | Bad]:
    """The rows of a loaded ``datasets.Dataset``, a thousand at a time."""
    import pyarrow as pa

    number = 0
    try:
        for batch in dataset.with_format(None).iter(batch_size=1000):
            for values in zip(*batch.values(), strict=True):
                number += 1
                yield Row(f"{label}:{number}", dict(zip(batch, values, strict=True)))
    except (pa.ArrowException, OSError) as error:
        raise VersatuneError(f"{label} is damaged near row {number}: {error}") from error


def _format(path: Path) -> Format:
    if path.is_dir():
        return "dataset"
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise VersatuneError(
            f"{path}: its suffix tells no format; set the source's `format` to one of "
            f"{', '.join(sorted(set(SUFFIXES.values())))}, dataset."
        )
    return kind


def _refuse_binary(path: Path, handle: BinaryIO) -> None:
    head = handle.read(8192)
    handle.seek(0)
    for start, what in _HEADS.items():
        if head.startswith(start):
            raise VersatuneError(f"{path} {what}, not UTF-8 text; convert it first.")
    if b"\x00" in head:
        raise VersatuneError(f"{path} is a binary file, not text.")
    if head.startswith(codecs.BOM_UTF8):
        handle.seek(len(codecs.BOM_UTF8))


def _first_char(handle: BinaryIO) -> bytes:
    at = handle.tell()
    first = handle.read(65536).lstrip()[:1]
    handle.seek(at)
    return first


def _lines(handle: BinaryIO, limit: int) -> Iterator[tuple[int, bytes | None]]:
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


def _read_lines(path: Path, handle: BinaryIO, limit: int) -> Iterator[Row | Bad]:
    for number, line in _lines(handle, limit):
        where = f"{path}:{number}"
        if line is None:
            yield Bad(where, "line_too_long", f"longer than {limit} bytes")
        elif line.strip():
            yield parse(where, line.rstrip(b"\r\n"))


def parse(where: str, line: bytes) -> Row | Bad:
    """One JSON object from one line of bytes."""
    try:
        values = json.loads(line.decode("utf-8"), object_pairs_hook=_no_doubles)
    except UnicodeDecodeError as error:
        return Bad(where, "not_utf8", f"byte {line[error.start]:#04x} at column {error.start + 1}")
    except _DoubleKeyError as error:
        return Bad(where, "duplicate_key", str(error))
    except RecursionError:
        return Bad(where, "too_deep", "JSON nested too deeply")
    except ValueError as error:
        return Bad(where, "bad_json", str(error))
    if not isinstance(values, dict):
        return Bad(where, "bad_json", f"a JSON {type(values).__name__}, not an object")
    return Row(where, values)


class _DoubleKeyError(Exception):
    pass


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [k for k, _ in pairs]
        double = next(k for k in keys if keys.count(k) > 1)
        raise _DoubleKeyError(f"the key {double!r} stands twice")
    return values


def _read_array(path: Path, handle: BinaryIO, limit: int) -> Iterator[Row | Bad]:
    """The elements of one JSON array, without holding the array in memory.

    A fault inside the array, or an element without an end within ``limit`` characters, leaves no
    place to go on from, so it ends the run.
    """
    decoder = json.JSONDecoder(object_pairs_hook=_no_doubles)
    reader = codecs.getreader("utf-8")(handle)
    head = _text(reader, path)
    buffer, at, ended, opened = head.lstrip()[1:], 0, False, False
    line = 1 + head[: len(head) - len(buffer)].count("\n")
    while True:
        while at < len(buffer) and (buffer[at].isspace() or (opened and buffer[at] == ",")):
            line += buffer[at] == "\n"
            at += 1
        if buffer[at : at + 1] == "]":
            return
        where = f"{path}:{line}"
        try:
            values, end = decoder.raw_decode(buffer, at)
            whole = end < len(buffer) or ended
        except _DoubleKeyError as error:
            raise VersatuneError(f"{where}: {error}.") from None
        except RecursionError:
            raise VersatuneError(f"{where}: JSON nested too deeply.") from None
        except ValueError as error:
            whole, fault = False, f"broken or cut off ({error})"
            if not ended:
                fault = f"longer than ingest.max_line_bytes ({limit}: raise it), or {fault}"
            if ended or len(buffer) - at > limit:
                raise VersatuneError(f"{where}: this row of the JSON list is {fault}.") from None
        if whole:
            opened = True
            line += buffer.count("\n", at, end)
            at = end
            if isinstance(values, dict):
                yield Row(where, values)
            else:
                yield Bad(where, "bad_json", f"a JSON {type(values).__name__}, not an object")
        else:
            more = _text(reader, where)
            buffer, at, ended = buffer[at:] + more, 0, not more


def _text(reader: codecs.StreamReader, where: object) -> str:
    try:
        return reader.read(1 << 16)
    except UnicodeDecodeError as error:
        raise VersatuneError(f"{where}: not UTF-8 from about here on ({error}).") from None


def _read_csv(path: Path, handle: BinaryIO, limit: int) -> Iterator[Row | Bad]:
    """The records of a CSV file with a header line.

    Undecodable bytes become lone surrogates, which the row checks reject later. A record of
    several lines of which one is too long is no row: a part of its text would be missing.
    """
    skipped: list[int] = []

    def lines() -> Iterator[str]:
        for number, line in _lines(handle, limit):
            if line is None:
                skipped.append(number)
                yield "\n"
            else:
                yield line.decode("utf-8", errors="surrogateescape")

    csv.field_size_limit(limit)
    reader = csv.reader(lines(), strict=True)
    try:
        header = next(reader, None)
    except csv.Error as error:
        raise VersatuneError(f"{path}: its header line can't be read: {error}.") from None
    if skipped:
        raise VersatuneError(f"{path}: its header is longer than ingest.max_line_bytes ({limit}).")
    if not header:
        return
    while True:
        before = reader.line_num
        skipped.clear()
        try:
            record = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            for number in range(before + 1, reader.line_num + 1):
                yield Bad(f"{path}:{number}", "bad_csv", str(error))
            continue
        where = f"{path}:{before + 1}"
        if skipped:
            for number in skipped:
                yield Bad(f"{path}:{number}", "line_too_long", f"longer than {limit} bytes")
        elif len(record) == len(header):
            yield Row(where, dict(zip(header, record, strict=True)))
        elif record:
            yield Bad(where, "bad_csv", f"{len(record)} fields, the header has {len(header)}")


def _read_parquet(path: Path) -> Iterator[Row | Bad]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1000):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(f"{path}:{number}", values)
    except (pa.ArrowException, OSError) as error:
        raise VersatuneError(f"{path} can't be read as Parquet: {error}") from error
