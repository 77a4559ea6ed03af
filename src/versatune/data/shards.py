"""One shard of cleaned rows becomes one shard of the store."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from versatune.artifacts import write_json
from versatune.data.accounts import TokenNotes
from versatune.data.arrow import read_shard, write_shard
from versatune.data.config import TokenizeParams
from versatune.data.conversations import Messages, RejectedError, is_document
from versatune.data.documents import DocumentEncoder, DocumentSpec
from versatune.data.encode import SCHEMA, Encoder, EncoderSpec, Example, to_arrow

BATCH = 500
"""Rows at a time, fewer where they are long."""
BATCH_BYTES = 1 << 23


@dataclass(frozen=True)
class Task:
    """One shard to make."""

    source: Path
    target: Path

    @property
    def notes(self) -> Path:
        """Where the shard's counts lie; written before the shard itself."""
        return self.target.with_suffix(".json")

    @property
    def done(self) -> bool:
        """Whether an interrupted run has left it whole."""
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


def make_shard(task: Task, encoder: Encoders) -> None:
    """Encode one shard of cleaned rows."""
    notes: dict[int, TokenNotes] = {}
    tables = [SCHEMA.empty_table()]
    for columns, results in _encoded(_batches(read_shard(task.source)), encoder):
        kept: list[tuple[int, Example]] = []
        for number, result in enumerate(results):
            noted = notes.setdefault(columns["domain"][number], TokenNotes())
            if isinstance(result, RejectedError):
                noted.dropped.add(result.reason, columns["row"][number], result.detail)
                continue
            noted.keep_source(document=is_document(columns["messages"][number]))
            for example in result:
                noted.keep(len(example.ids), example.n_supervised, example.truncated)
                kept.append((number, example))
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


def _encoded(
    batches: Iterator[dict[str, list[Any]]], encoder: Encoders
) -> Iterator[tuple[dict[str, list[Any]], list[list[Example] | RejectedError]]]:
    """Each batch with one result a row: its examples, or why it has none."""
    waiting: deque[dict[str, list[Any]]] = deque()

    def conversations() -> Iterator[list[Messages]]:
        for columns in batches:
            waiting.append(columns)
            yield [m for m in columns["messages"] if not is_document(m)]

    for said in encoder.conversations.encode_batches(conversations()):
        columns = waiting.popleft()
        texts = [m[0]["content"] for m in columns["messages"] if is_document(m)]
        talks, documents = iter(said), iter(encoder.documents.encode(texts))
        results: list[list[Example] | RejectedError] = []
        for messages in columns["messages"]:
            if is_document(messages):
                results.append(next(documents))
            else:
                found = next(talks)
                results.append(found if isinstance(found, RejectedError) else [found])
        yield columns, results


