"""One shard of cleaned rows becomes one shard of the store."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from versatune.artifacts import write_json
from versatune.data.accounts import TokenNotes
from versatune.data.arrow import read_shard, write_shard
from versatune.data.config import TokenizeParams
from versatune.data.conversations import Messages, RejectedError, is_document, loaded
from versatune.data.documents import DocumentEncoder, DocumentSpec
from versatune.data.encode import SCHEMA, Encoder, EncoderSpec, Example, to_arrow
from versatune.data.prepared import has_thought

BATCH = 500
"""Rows at a time, fewer where they are long."""
BATCH_BYTES = 1 << 23


@dataclass(frozen=True)
class Task:
    """One shard to make."""

    source: Path
    target: Path

    def absolute(self) -> Self:
        """The same task where the working folder is another one."""
        return replace(self, source=self.source.absolute(), target=self.target.absolute())

    @property
    def notes(self) -> Path:
        """The file with the shard's counts; written before the shard itself."""
        return self.target.with_suffix(".json")

    @property
    def done(self) -> bool:
        """Whether an earlier run has finished it."""
        return self.target.is_file() and self.notes.is_file()


@dataclass(frozen=True)
class Encoders:
    """One encoder for each kind of row."""

    conversations: Encoder
    documents: DocumentEncoder

    @classmethod
    def of(cls, spec: EncoderSpec, documents: DocumentSpec, params: TokenizeParams) -> Self:
        """From what passes between processes."""
        return cls(
            Encoder(spec, params.max_length, params.overflow),
            DocumentEncoder(documents, params.max_length),
        )

    def encode(self, rows: Sequence[Messages]) -> list[list[Example] | RejectedError]:
        """One result a row, in order: its examples, or why it has none."""
        return next(self.encode_batches([rows]))

    def encode_batches(
        self, batches: Iterable[Sequence[Messages]]
    ) -> Iterator[list[list[Example] | RejectedError]]:
        """One list of results a batch, in order."""
        waiting: deque[Sequence[Messages]] = deque()

        def conversations() -> Iterator[list[Messages]]:
            for rows in batches:
                waiting.append(rows)
                yield [row for row in rows if not is_document(row)]

        for said in self.conversations.encode_batches(conversations()):
            rows = waiting.popleft()
            whole = [row[0] for row in rows if is_document(row)]
            texts, ended = [w["content"] for w in whole], [w.get("ended", True) for w in whole]
            talks, documents = iter(said), iter(self.documents.encode(texts, ended))
            results: list[list[Example] | RejectedError] = []
            for row in rows:
                if is_document(row):
                    results.append(next(documents))
                else:
                    found = next(talks)
                    results.append(found if isinstance(found, RejectedError) else [*found.all])
            yield results


def make_shard(task: Task, encoder: Encoders) -> None:
    """Encode one shard of cleaned rows."""
    notes: dict[int, TokenNotes] = {}
    tables = [SCHEMA.empty_table()]
    waiting: deque[dict[str, list[Any]]] = deque()

    def batches() -> Iterator[list[Messages]]:
        for columns in _batches(read_shard(task.source)):
            waiting.append(columns)
            yield columns["messages"]

    for results in encoder.encode_batches(batches()):
        columns = waiting.popleft()
        kept: list[tuple[int, Example]] = []
        for number, result in enumerate(results):
            noted = notes.setdefault(columns["domain"][number], TokenNotes())
            if isinstance(result, RejectedError):
                noted.dropped.add(result.reason, columns["row"][number], result.detail)
                continue
            messages = columns["messages"][number]
            thought = has_thought(loaded(messages))
            noted.keep(result, document=is_document(messages), thought=thought)
            kept += [(number, example) for example in result]
        tables.append(
            to_arrow(
                [example for _, example in kept],
                [columns["domain"][n] for n, _ in kept],
                [columns["row"][n] for n, _ in kept],
            )
        )
    write_json(task.notes, {str(domain): noted.as_dict() for domain, noted in notes.items()})
    write_shard(task.target, pa.concat_tables(tables).combine_chunks())


def _batches(table: pa.Table) -> Iterator[dict[str, list[Any]]]:
    """The columns of a shard in batches, bounded in rows and in bytes."""
    rows = max(1, min(BATCH, BATCH_BYTES * table.num_rows // max(table.nbytes, 1)))
    for batch in table.to_batches(max_chunksize=rows):
        yield batch.to_pydict()
