"""Tokenising: from cleaned rows to the store that training and evaluation read.

Each shard of cleaned rows becomes one shard of the store, written in one step; an interrupted
run goes on with the shards that are missing. The result does not depend on the number of
processes.

Raises VersatuneError: ``max_length`` is more than the model takes; the tokenizer has no fast form;
a domain has no rows left in a split; cleaning and tokenising together lose more of a domain's rows
than ``ingest.max_reject_rate`` allows; a worker process died.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from versatune.artifacts import (
    FolderRef,
    WorkFolder,
    exclusive,
    file_digest,
    fingerprint,
    read_json,
    write_json,
)
from versatune.data.accounts import Rejects, TokenNotes
from versatune.data.config import TokenizeParams
from versatune.errors import VersatuneError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    import pyarrow as pa

    from versatune.data.conversations import Messages, RejectedError
    from versatune.data.documents import DocumentEncoder, DocumentSpec
    from versatune.data.encode import Encoder, EncoderSpec, Example

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation")
BATCH = 500
"""Rows at a time, fewer where they are long."""
BATCH_BYTES = 1 << 23
ROWS_PER_WORKER = 25_000
"""Fewer rows than this don't pay for starting another process."""
FEW_TRAIN, FEW_VALIDATION = 20, 4
"""A domain with fewer rows is warned of."""
REPORT = "report.json"
TOKENIZER_FILES = ("token", "vocab", "merges", "special", "added", "chat_template", "config.json")
"""How the names of a tokenizer's files begin."""


def tokenize(
    data: FolderRef,
    checkpoint: Path,
    load_tokenizer: Callable[[Path], "PreTrainedTokenizerBase"],
    params: TokenizeParams,
) -> FolderRef:
    """Tokenise the rows of :func:`versatune.data.clean.clean` into ``params.folder``.

    ``checkpoint``: the Hugging Face folder with the tokenizer, read by ``load_tokenizer`` only
    when there is work. Facts of the store: ``domains``, ``max_length``, ``tokenizer`` (stands for
    its files), ``data_fingerprint``, and for each split and domain ``rows``, ``tokens`` and
    ``supervised_tokens``. ``report.json`` counts, for each domain, rows that were dropped or
    truncated, and ``train_rows``, ``validation_rows``, ``documents`` and ``pieces``: the rows of
    the data that stay, how many of them are documents, and the rows of the store these make.
    """
    _check_length(checkpoint, params.max_length)
    inputs = {
        "parameters": params.model_dump(mode="json", exclude={"folder", "num_workers"}),
        "data": data.fingerprint,
        "tokenizer": tokenizer_fingerprint(checkpoint),
    }
    with exclusive(params.folder.with_name(f".{params.folder.name}.lock"), str(params.folder)):
        work = WorkFolder.open(params.folder, inputs)
        if work.complete:
            return work.ref
        return _tokenize(work, data, load_tokenizer(checkpoint), params)


def tokenizer_fingerprint(checkpoint: Path) -> str:
    """16 hex digits that stand for the tokenizer in a checkpoint folder, not for its weights."""
    files = sorted(f for f in checkpoint.iterdir() if f.name.startswith(TOKENIZER_FILES))
    files += sorted(checkpoint.glob("*.model"))
    return fingerprint({f.name: file_digest(f) for f in files})


@dataclass(frozen=True)
class _Task:
    """One shard to make."""

    source: Path
    target: Path

    @property
    def notes(self) -> Path:
        """Where the shard's counts lie; written before the shard itself."""
        return self.target.with_suffix(".json")

    @property
    def done(self) -> bool:
        return self.target.is_file() and self.notes.is_file()


def _tokenize(
    work: WorkFolder,
    data: FolderRef,
    tokenizer: "PreTrainedTokenizerBase",
    params: TokenizeParams,
) -> FolderRef:
    from versatune.data.arrow import describe
    from versatune.data.documents import DocumentSpec
    from versatune.data.encode import SCHEMA, EncoderSpec

    spec = EncoderSpec.of(tokenizer), DocumentSpec.of(tokenizer)
    encoder = _Encoders.of(*spec, params)
    if not encoder.conversations.template.ends_answers:
        logger.warning(
            "the chat template ends no answer with a control token: a model trained with it "
            "does not learn to stop."
        )
    names: list[str] = data.facts["domains"]
    tasks = {
        split: [
            _Task(shard, work.path / split / shard.name)
            for shard in sorted((data.path / split).glob("data-*.arrow"))
        ]
        for split in SPLITS
    }
    todo = [task for split in SPLITS for task in tasks[split] if not task.done]
    rows = sum(sum(of_split.values()) for of_split in data.facts["rows"].values())
    _run(todo, spec, encoder, params, rows)
    facts: dict[str, Any] = {}
    totals = {name: TokenNotes() for name in names}
    kept: dict[str, dict[str, int]] = {name: {} for name in names}
    for split in SPLITS:
        found = _collect(tasks[split], names, totals)
        _check_rows(found, split, params.max_length)
        facts[split] = {
            name: {"rows": n.rows, "tokens": n.tokens, "supervised_tokens": n.supervised_tokens}
            for name, n in found.items()
        }
        for name, notes in found.items():
            kept[name] |= {f"{split}_rows": notes.sources, f"{split}_pieces": notes.rows}
        describe(work.path / split, [task.target.name for task in tasks[split]], SCHEMA)
    check_losses(read_json(data.path / REPORT), totals, data.facts["max_reject_rate"])
    for name in names:
        _tell(name, totals[name], kept[name])
    write_json(
        work.path / REPORT, {name: {**n.as_dict(), **kept[name]} for name, n in totals.items()}
    )
    return work.seal(
        domains=names,
        max_length=params.max_length,
        tokenizer=work.inputs["tokenizer"],
        data_fingerprint=data.facts["data_fingerprint"],
        **facts,
    )


def _run(
    todo: list[_Task],
    spec: "tuple[EncoderSpec, DocumentSpec]",
    encoder: "_Encoders",
    params: TokenizeParams,
    rows: int,
) -> None:
    """Make the shards, in this process or in several."""
    from tqdm import tqdm

    available = len(os.sched_getaffinity(0))
    workers = params.num_workers or max(1, min(available, rows // ROWS_PER_WORKER))
    workers = min(workers, len(todo))
    bar = tqdm(total=len(todo), desc="Tokenising", unit=" shards", delay=5)
    with bar:
        if workers <= 1:
            for task in todo:
                _make(task, encoder)
                bar.update()
            return
        # Not forked: tokenizers and torch have threads, and a fork of those can hang.
        with ProcessPoolExecutor(
            workers, get_context("spawn"), _start_worker, (spec, params)
        ) as pool:
            try:
                for future in as_completed([pool.submit(_work, task) for task in todo]):
                    future.result()
                    bar.update()
            except BrokenProcessPool:
                raise VersatuneError(
                    "a process that tokenised died (out of memory?); run again to go on from the "
                    "shards that are done, with a smaller tokenize.num_workers if it recurs."
                ) from None
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


@dataclass(frozen=True)
class _Encoders:
    """One encoder for each kind of row."""

    conversations: "Encoder"
    documents: "DocumentEncoder"

    @classmethod
    def of(cls, spec: "EncoderSpec", documents: "DocumentSpec", params: TokenizeParams) -> Self:
        from versatune.data.documents import DocumentEncoder
        from versatune.data.encode import Encoder

        return cls(
            Encoder(spec, params.max_length, params.overflow),
            DocumentEncoder(documents, params.max_length),
        )


_worker: dict[str, _Encoders] = {}


def _start_worker(spec: "tuple[EncoderSpec, DocumentSpec]", params: TokenizeParams) -> None:
    """Every worker is one thread: there are as many workers as the parameters want."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _worker["encoder"] = _Encoders.of(*spec, params)


def _work(task: _Task) -> None:
    _make(task, _worker["encoder"])


def _make(task: _Task, encoder: _Encoders) -> None:
    """Encode one shard of cleaned rows."""
    import pyarrow as pa

    from versatune.data.arrow import read_shard, write_shard
    from versatune.data.conversations import RejectedError, is_document
    from versatune.data.encode import SCHEMA, to_arrow

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


def _batches(table: "pa.Table") -> "Iterator[dict[str, list[Any]]]":
    """The columns of a shard in batches, bounded in rows and in bytes."""
    rows = max(1, min(BATCH, BATCH_BYTES * table.num_rows // max(table.nbytes, 1)))
    for batch in table.to_batches(max_chunksize=rows):
        yield batch.to_pydict()


def _encoded(
    batches: Iterator[dict[str, list[Any]]], encoder: _Encoders
) -> "Iterator[tuple[dict[str, list[Any]], list[list[Example] | RejectedError]]]":
    """Each batch with one result a row: its examples, or why it has none."""
    from versatune.data.conversations import RejectedError, is_document

    waiting: deque[dict[str, list[Any]]] = deque()

    def conversations() -> "Iterator[list[Messages]]":
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


def _collect(
    tasks: list[_Task], names: list[str], totals: dict[str, TokenNotes]
) -> dict[str, TokenNotes]:
    """The counts of one split's shards by domain, which are also added to ``totals``."""
    found = {name: TokenNotes() for name in names}
    for task in tasks:
        for domain, entry in read_json(task.notes).items():
            found[names[int(domain)]].merge(entry)
            totals[names[int(domain)]].merge(entry)
    return found


def _check_rows(found: dict[str, TokenNotes], split: str, max_length: int) -> None:
    for name, notes in found.items():
        if not notes.rows:
            raise VersatuneError(
                f"domains.{name}: no {split} rows are left after tokenising to "
                f"tokenize.max_length {max_length}: {notes.dropped.worst()}."
            )


def check_losses(
    cleaned: Mapping[str, Mapping[str, Any]], tokenised: Mapping[str, TokenNotes], limit: float
) -> None:
    """Raise VersatuneError when a domain lost more than ``limit`` of its rows in both stages.

    ``cleaned``: the report of cleaning, where rows were rejected; ``tokenised``: what was dropped
    of those that stayed. Duplicates and rows left out are not tokenised, so what is dropped is
    counted up to all sound rows: where there are none of these the two are simply added.
    """
    for name, entry in cleaned.items():
        rejects = Rejects.of(entry["rejected"])
        notes = tokenised[name]
        dropped = notes.dropped.total
        sound = entry["read"] - rejects.total
        lost = rejects.total + dropped * sound / max(notes.sources + dropped, 1)
        if not dropped or lost <= limit * entry["read"] + 1e-9:
            continue
        share = lost / entry["read"]
        rejects.merge(notes.dropped.as_dict())
        long = {"too_long", "prompt_too_long"} & notes.dropped.counts.keys()
        raise VersatuneError(
            f"domains.{name}: {rejects.total} of {entry['read']} rows can't be used "
            f"({share:.1%} of what was read), {dropped} of them found in tokenising: "
            f"{rejects.worst()}. "
            + ("Raise tokenize.max_length, set tokenize.overflow: truncate, mend" if long else "Mend")
            + f" the rows, or raise ingest.max_reject_rate (now {limit:g}) to go on without them."
        )


def _tell(name: str, notes: TokenNotes, kept: Mapping[str, int]) -> None:
    """Say what tokenising lost of a domain, and whether little is left of it."""
    train, validation = kept["train_rows"], kept["validation_rows"]
    if notes.dropped.total:
        logger.info(
            "%s: tokenising dropped %s rows, first %s; %d are left to train, %d to validate",
            name,
            notes.dropped.summary(),
            notes.dropped.worst(1).rsplit("first ", 1)[-1],
            train,
            validation,
        )
    if train < FEW_TRAIN or validation < FEW_VALIDATION:
        logger.warning(
            "domains.%s: only %d rows are left to train on and %d to measure: a loss of so few "
            "rows says little, and shares that follow it follow chance. Add rows, or remove the "
            "domain.",
            name,
            train,
            validation,
        )


def _check_length(checkpoint: Path, max_length: int) -> None:
    """Refuse sequences longer than the model's positions, before any work."""
    config = checkpoint / "config.json"
    limit = read_json(config).get("max_position_embeddings") if config.is_file() else None
    if limit is not None and max_length > limit:
        raise VersatuneError(
            f"tokenize.max_length is {max_length}, but {checkpoint} takes {limit} tokens at most."
        )
