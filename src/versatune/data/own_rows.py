"""A tokenised store that includes the base model's own texts."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from versatune.artifacts import FolderRef, fingerprint
from versatune.data.arrow import ShardWriter
from versatune.data.clean import SPLITS
from versatune.data.config import TokenizeParams
from versatune.data.conversations import DOCUMENT, Messages, RejectedError
from versatune.data.prepared import THINK, THOUGHT
from versatune.work import Piece

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from versatune.data.encode import Example
    from versatune.data.store import Split

VERSION = 2
"""Raised when the same store and texts would give other rows: kept stores are not used."""

SHARD_ROWS = 10_000


TEXTS = "texts.jsonl"


@dataclass(frozen=True)
class OwnText:
    """A text of the base model that stays."""

    index: int
    domain: str
    split: "Split"
    ended: bool
    """Whether the model ended it; otherwise the length limit cut it off."""
    confidence: float
    text: str
    question: str = ""
    answer: str = ""
    """With a question the row is an instruction and its answer, else ``text`` as a document."""
    thought: str = ""
    """What the model thought before the answer."""


def read_own_texts(ref: FolderRef) -> list[OwnText]:
    """All texts of a finished folder, in the order of the domains."""
    lines = (ref.path / TEXTS).read_text(encoding="utf-8").split("\n")
    return [OwnText(**json.loads(line)) for line in lines if line]


def with_own_rows(
    store: FolderRef,
    texts: FolderRef,
    checkpoint: Path,
    load_tokenizer: Callable[[Path], "PreTrainedTokenizerBase"],
    trained_on: Sequence[str],
) -> Piece:
    """``store`` with the texts of the domains ``trained_on`` after their rows.

    How a text becomes a row: :func:`examples`. The store keeps its form; metadata:
    besides its own, ``own``: domain -> split -> how many of its rows are such texts.
    """
    inputs = {
        "version": VERSION,
        "store": store.fingerprint,
        "texts": texts.fingerprint,
        "trained_on": list(trained_on),
    }

    def make(folder: Path) -> dict[str, Any]:
        import datasets

        from versatune.data.encode import SCHEMA

        tokenizer = load_tokenizer(checkpoint)
        names: list[str] = store.metadata["domains"]
        wanted = [text for text in read_own_texts(texts) if text.domain in trained_on]
        facts: dict[str, Any] = {}
        own: dict[str, dict[str, int]] = {name: {} for name in names}
        for split in SPLITS:
            table = datasets.load_from_disk(str(store.path / split)).data.table
            writer = ShardWriter(folder / split, SCHEMA, SHARD_ROWS)
            facts[split] = {}
            for number, name in enumerate(names):
                rows = table.filter(pc.equal(table.column("domain"), number)).select(SCHEMA.names)
                for batch in rows.cast(SCHEMA).to_batches():
                    writer.add(batch)
                # Where a domain has held-out rows, they measure what it can do, and drift the rest.
                takes = split == "train" or not store.metadata[split][name]["rows"]
                mine = [t for t in wanted if takes and t.domain == name and t.split == split]
                made = _encoded(tokenizer, mine, number, store.metadata["max_length"])
                for batch in made.to_batches():
                    writer.add(batch)
                own[name][split] = made.num_rows
                facts[split][name] = _counts(store.metadata[split][name], made)
            writer.close()
        parts = [store.metadata["data_fingerprint"], texts.fingerprint, list(trained_on)]
        return {**store.metadata, **facts, "own": own, "data_fingerprint": fingerprint(parts)}

    return Piece(inputs, make)


def examples(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[OwnText], max_length: int
) -> "list[list[Example] | RejectedError]":
    """The tokens of each text as it is trained on, in order, or why it has none.

    A document, without an end token where the length limit cut it off; or, of a text with a
    question, the rendered conversation with labels on the answer.
    """
    from versatune.data.documents import DocumentSpec
    from versatune.data.encode import EncoderSpec
    from versatune.data.shards import Encoders

    params = TokenizeParams(max_length=max_length)
    encoders = Encoders.of(EncoderSpec.of(tokenizer), DocumentSpec.of(tokenizer), params)
    found = encoders.encode([_row(text) for text in texts])
    for i, text in enumerate(texts):
        if text.thought and isinstance(found[i], RejectedError):
            (found[i],) = encoders.encode([_row(text, within=True)])
    return found


def _row(text: OwnText, *, within: bool = False) -> Messages:
    """``within``: with the thought in the content, where the template takes none beside it."""
    if not text.question:
        return [{"role": DOCUMENT, "content": text.text, "ended": text.ended}]
    answer = {"role": "assistant", "content": text.answer}
    if text.thought and within:
        answer["content"] = f"{THINK}\n{text.thought}\n{THOUGHT}\n\n{text.answer}"
    elif text.thought:
        answer["reasoning_content"] = text.thought
    return [{"role": "user", "content": text.question}, answer]


def _encoded(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[OwnText], domain: int, max_length: int
) -> pa.Table:
    """Texts as rows of a store."""
    from versatune.data.encode import to_arrow

    rows = [
        (example, f"sample:{text.index}")
        for text, pieces in zip(texts, examples(tokenizer, texts, max_length), strict=True)
        if not isinstance(pieces, RejectedError)
        for example in pieces
    ]
    return to_arrow([e for e, _ in rows], [domain] * len(rows), [where for _, where in rows])


def _counts(before: Mapping[str, int], made: pa.Table) -> dict[str, int]:
    added = {
        "rows": made.num_rows,
        "tokens": sum(made.column("length").to_pylist()),
        "supervised_tokens": sum(made.column("n_supervised").to_pylist()),
    }
    return {unit: before[unit] + number for unit, number in added.items()}
