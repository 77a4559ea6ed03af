"""The first pass over the data: each row is read, checked, counted, hashed and written as Arrow."""

import itertools
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from versatune.data.accounts import Rejects
from versatune.data.advice import nearest
from versatune.data.config import CleanParams, Shape, Source
from versatune.data.conversations import (
    Messages,
    RejectedError,
    besides_text,
    conversation,
    is_document,
    stored,
)
from versatune.data.duplicates import answer_key, signatures
from versatune.data.file_formats import Asked
from versatune.data.hub import read_hub
from versatune.data.leaks import LeakIndex
from versatune.data.readers import read
from versatune.data.rows import RejectedRow, Row
from versatune.data.selection import Keys
from versatune.data.shapes import (
    detect_shape,
    ignored_columns,
    ignored_keys,
    numbers_as_text,
    row_shape,
    settle,
    unknown_shape,
)
from versatune.data.sources import Origin
from versatune.data.text import U64, Vocabulary, flatten, fold, key
from versatune.errors import VersatuneError
from versatune.work import bars

logger = logging.getLogger(__name__)

BATCH = 2000
"""Rows at a time, fewer where they are long."""
BATCH_CHARACTERS = 1 << 24
UNKNOWN = 50
"""This many first rows of unknown shape mean that the file has another one."""

MESSAGES = pa.list_(
    pa.struct([("role", pa.string()), ("content", pa.string()), ("fields", pa.string())])
)
"""Turns as ``conversations.stored`` gives them."""
SCHEMA = pa.schema(
    [("domain", pa.int32()), ("messages", MESSAGES), ("prompt", pa.uint64()), ("row", pa.string())]
)
"""Columns of cleaned rows; ``prompt`` stands for the normalised prompt, ``row`` is file:line. A
document is one message with a special role; its prompt is the whole of it."""


@dataclass
class Tally:
    """What was read for one domain, and what was rejected and why."""

    rejects: Rejects
    read: int = 0
    ignored: Counter[str] = field(default_factory=Counter)
    """Columns and keys that nothing uses, with the number of rows that have them."""
    numbers: Counter[str] = field(default_factory=Counter)
    """Fields whose numbers were read as texts, with the number of rows that have one."""


@dataclass(frozen=True)
class Collected:
    """The result of the first pass: the keys of every valid row in memory, the rows on disk."""

    keys: Keys
    tallies: list[Tally]
    parts: list[Path]
    """One Arrow stream a domain."""
    contents: U64
    """Stands for each row's conversation as it is written, shape (rows,)."""


class Collector:
    """Reads domain after domain; see :meth:`add` and :meth:`finish`."""

    def __init__(
        self, folder: Path, params: CleanParams, leaks: LeakIndex, at_most: int | None = None
    ) -> None:
        """``at_most``: rows to read of each source; None: all."""
        self.folder = folder
        self.at_most = at_most
        self.params = params
        self.leaks = leaks
        self.tallies: list[Tally] = []
        self.parts: list[Path] = []
        self._vocabulary = Vocabulary()
        self._columns: dict[str, list[Any]] = {name: [] for name in _TYPES}
        self._signatures = folder / "signatures.bin"

    def add(self, name: str, origins: Iterable[Origin]) -> None:
        """Read all sources of the next domain.

        Raises VersatuneError when more of a source's rows are broken than the parameters allow.
        """
        domain, tally = len(self.tallies), Tally(Rejects(self.params.max_examples))
        path = self.folder / f"{domain:03d}.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as out:
            for number, origin in enumerate(origins):
                of_source = Tally(Rejects(self.params.max_examples))
                sound = self._sound(origin, of_source, f"Reading {name}")
                for batch in _batches(sound):
                    out.write_batch(self._digest(domain, number, batch))
                self._check_rate(origin.source, of_source)
                tally.read += of_source.read
                tally.rejects.merge(of_source.rejects.as_dict())
                tally.ignored.update(of_source.ignored)
                tally.numbers.update(of_source.numbers)
        self.tallies.append(tally)
        self.parts.append(path)

    def finish(self) -> Collected:
        """The keys of all rows, in the order in which they were read."""
        sign = None
        if self._signatures.exists():
            sign = np.fromfile(self._signatures, dtype=np.uint16)
            sign = sign.reshape(len(sign) // 128, 128)
        columns: dict[str, Any] = {
            name: np.concatenate([np.empty(0, dtype), *self._columns[name]])
            for name, dtype in _TYPES.items()
        }
        contents = columns.pop("content")
        return Collected(Keys(**columns, signature=sign), self.tallies, self.parts, contents)

    def _sound(self, origin: Origin, tally: Tally, title: str) -> Iterator[tuple[str, Messages]]:
        shape = origin.source.shape
        unknown: list[VersatuneError] = []
        unseen = set(origin.source.columns.values())
        last: dict[str, Any] = {}
        rows = itertools.islice(_rows(origin, self.params), self.at_most)
        for raw in bars.each(rows, None, title, "rows"):
            tally.read += 1
            if isinstance(raw, RejectedRow):
                tally.rejects.add(raw.reason, raw.where, raw.detail)
                continue
            last = raw.values
            unseen -= last.keys()
            if shape is None:
                try:
                    shape = detect_shape(raw.values, origin.source.columns, raw.where)
                    logger.debug("%s: rows of the shape %s.", origin.source.label, shape)
                except VersatuneError as error:
                    unknown.append(error)
                    if len(unknown) == UNKNOWN:
                        raise unknown[0] from None
                    tally.rejects.add("missing_column", raw.where, "its columns fit no shape")
                    continue
            own = shape
            if origin.source.shape is None:
                own = row_shape(raw.values, shape, origin.source.columns)
            row = self._checked(raw, own, origin.source, tally)
            if isinstance(row, RejectedRow):
                tally.rejects.add(row.reason, row.where, row.detail)
            else:
                yield row
        if shape is None and unknown:
            raise unknown[0]
        if unseen and last:
            _refuse_unseen(origin.source, unseen, last)
        if shape is not None and tally.rejects.counts.get("missing_column", 0) == tally.read > 0:
            raise unknown_shape(last, origin.source.columns, origin.source.label, shape)

    def _checked(
        self, raw: Row, shape: Shape, source: Source, tally: Tally
    ) -> tuple[str, Messages] | RejectedRow:
        tally.ignored.update(ignored_columns(raw.values, shape, source.columns))
        try:
            values, settled = settle(raw.values, shape, source.columns)
            tally.ignored.update(ignored_keys(values, settled, shape))
            tally.numbers.update(numbers_as_text(values, settled))
            messages = conversation(values, settled, {})
        except RejectedError as error:
            return RejectedRow(raw.where, error.reason, error.detail)
        if sum(len(_said(m)) for m in messages) > self.params.max_line_bytes:
            limit = self.params.max_line_bytes
            return RejectedRow(raw.where, "line_too_long", f"more than {limit} characters")
        return raw.where, messages

    def _digest(
        self, domain: int, source: int, batch: list[tuple[str, Messages]]
    ) -> pa.RecordBatch:
        """Note the keys of a batch, and give it as Arrow."""
        domains, prompt_ids, ids = [domain] * len(batch), [], []
        noted: dict[str, Any] = {name: [] for name in ("row", "prompt", "answer", "content")}
        noted |= {"domain": domains, "source": [source] * len(batch)}
        for _, messages in batch:
            turns = [(m["role"], fold(_said(m))) for m in messages]
            besides = besides_text(messages)
            prompt, answer, other = _keyed(turns, document=is_document(messages))
            answer_ids = self._vocabulary.ids(answer)
            other_ids = self._vocabulary.ids(other + fold(besides))
            folded = "\0".join(f"{role}\0{text}" for role, text in turns)
            written = "\0".join(f"{m['role']}\0{m['content']}" for m in messages)
            noted["row"].append(key(folded + besides))
            noted["content"].append(key(written + besides))
            noted["prompt"].append(key(prompt))
            noted["answer"].append(answer_key(answer, len(answer_ids)))
            ids.append(other_ids + answer_ids)
            prompt_ids.append(other_ids or answer_ids)
        flat, starts = flatten(ids)
        is_question = self.leaks.is_question(*flatten(prompt_ids))
        noted["leaked"] = self.leaks.leaking(flat, starts) | is_question
        if self.params.near_duplicate_threshold is not None:
            with self._signatures.open("ab") as out:
                out.write(signatures(flat, starts).tobytes())
        for name, values in noted.items():
            self._columns[name].append(np.asarray(values, dtype=_TYPES[name]))
        turns_of = [stored(messages) for _, messages in batch]
        columns = [domains, turns_of, noted["prompt"], [where for where, _ in batch]]
        arrays = [pa.array(c, t) for c, t in zip(columns, SCHEMA.types, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)

    def _check_rate(self, source: Source, tally: Tally) -> None:
        broken = tally.rejects.total
        if not tally.read:
            logger.warning("%s holds no rows.", source.label)
        elif broken > self.params.max_reject_rate * tally.read:
            raise VersatuneError(
                f"{source.label}: {broken} of {tally.read} rows are broken: "
                f"{tally.rejects.worst()}. Fix the file, or raise ingest.max_reject_rate "
                f"(now {self.params.max_reject_rate:g}) to go on without them."
            )


def _refuse_unseen(source: Source, unseen: set[str], there: dict[str, Any]) -> None:
    """A column named by mistake would otherwise silently leave out its field in every row."""
    wrong = ", ".join(f"{field}: {c}" for field, c in source.columns.items() if c in unseen)
    close = "".join(nearest(column, there) for column in sorted(unseen))
    raise VersatuneError(
        f"{source.label}: no row has what `columns` names ({wrong}); the last one has "
        f"{', '.join(sorted(there))}. Fix the name{close}, or leave the field out of `columns`."
    )


_TYPES: dict[str, Any] = {
    "domain": np.int16,
    "source": np.int16,
    "row": np.uint64,
    "prompt": np.uint64,
    "leaked": np.bool_,
    "answer": np.uint64,
    "content": np.uint64,
}


def _said(message: dict[str, Any]) -> str:
    """The full text of a turn: its thought, its content, its tool calls."""
    if len(message) == 2:
        return str(message["content"])
    calls = json.dumps(message["tool_calls"]) if "tool_calls" in message else ""
    parts = (message.get("reasoning_content", ""), message["content"], calls)
    return "\n".join(filter(None, parts))


def _rows(origin: Origin, params: CleanParams) -> Iterator[Row | RejectedRow]:
    if origin.source.hub is not None:
        yield from read_hub(origin.source)
    source = origin.source
    said = source.format is not None
    asked = Asked(source.split, params.max_line_bytes, source.columns, said)
    for path, kind in origin.files:
        yield from read(path, kind, asked)


def _batches(
    rows: Iterator[tuple[str, Messages]],
) -> Iterator[list[tuple[str, Messages]]]:
    """Rows in batches, bounded in rows and in characters."""
    batch: list[tuple[str, Messages]] = []
    characters = 0
    for row in rows:
        batch.append(row)
        characters += sum(len(_said(m)) for m in row[1])
        if len(batch) == BATCH or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _keyed(turns: list[tuple[str, str]], *, document: bool) -> tuple[str, str, str]:
    """First prompt, answers, and all but the answers; a document is its own prompt and answer."""
    if document:
        return turns[0][1], turns[0][1], ""
    prompt = next(text for role, text in turns if role == "user")
    answer = "\n".join(text for role, text in turns if role == "assistant")
    return prompt, answer, "\n".join(text for role, text in turns if role != "assistant")
