"""Tokenising: from cleaned rows to the store that training and evaluation read.

Each shard of cleaned rows becomes one shard of the store, written in one step; an interrupted
run goes on with the shards that are missing. The result does not depend on the number of
processes.

Raises VersatuneError: ``max_length`` is more than the model takes; the tokenizer has no fast form;
a domain has no rows left in a split; a worker process died.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from versatune.artifacts import (
    FolderRef,
    WorkFolder,
    exclusive,
    file_digest,
    fingerprint,
    read_json,
    write_json,
)
from versatune.data.accounts import TokenNotes
from versatune.data.clean import SPLITS
from versatune.data.config import TokenizeParams
from versatune.errors import VersatuneError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from versatune.data.encode import Encoder, EncoderSpec

logger = logging.getLogger(__name__)

BATCH = 500
ROWS_PER_WORKER = 25_000
"""Fewer rows than this don't pay for starting another process."""
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
    ``supervised_tokens``. ``report.json`` counts the rows that were dropped or truncated.
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
    from versatune.data.encode import SCHEMA, Encoder, EncoderSpec

    spec = EncoderSpec.of(tokenizer)
    encoder = Encoder(spec, params.max_length, params.overflow)
    if not encoder.template.ends_answers:
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
    report = {name: TokenNotes() for name in names}
    for split in SPLITS:
        found = _collect(tasks[split], names, report)
        _check_rows(found, split, params.max_length)
        facts[split] = {
            name: {"rows": n.rows, "tokens": n.tokens, "supervised_tokens": n.supervised_tokens}
            for name, n in found.items()
        }
        describe(work.path / split, [task.target.name for task in tasks[split]], SCHEMA)
    write_json(work.path / REPORT, {name: notes.as_dict() for name, notes in report.items()})
    return work.seal(
        domains=names,
        max_length=params.max_length,
        tokenizer=work.inputs["tokenizer"],
        data_fingerprint=data.facts["data_fingerprint"],
        **facts,
    )


def _run(
    todo: list[_Task],
    spec: "EncoderSpec",
    encoder: "Encoder",
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


_worker: dict[str, "Encoder"] = {}


def _start_worker(spec: "EncoderSpec", params: TokenizeParams) -> None:
    """Every worker is one thread: there are as many workers as the parameters want."""
    from versatune.data.encode import Encoder

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _worker["encoder"] = Encoder(spec, params.max_length, params.overflow)


def _work(task: _Task) -> None:
    _make(task, _worker["encoder"])


def _make(task: _Task, encoder: "Encoder") -> None:
    """Encode one shard of cleaned rows."""
    import pyarrow as pa

    from versatune.data.arrow import read_shard, write_shard
    from versatune.data.conversations import Messages, RejectedError
    from versatune.data.encode import SCHEMA, Example, to_arrow

    notes: dict[int, TokenNotes] = {}
    tables = [SCHEMA.empty_table()]
    waiting: deque[dict[str, list[Any]]] = deque()

    def conversations() -> Iterator[list[Messages]]:
        for batch in read_shard(task.source).to_batches(max_chunksize=BATCH):
            waiting.append(batch.to_pydict())
            yield waiting[-1]["messages"]

    for results in encoder.encode_batches(conversations()):
        columns = waiting.popleft()
        kept: dict[int, Example] = {}
        for number, result in enumerate(results):
            noted = notes.setdefault(columns["domain"][number], TokenNotes())
            if isinstance(result, RejectedError):
                noted.dropped.add(result.reason, columns["row"][number], result.detail)
            else:
                noted.keep(len(result.ids), result.n_supervised, result.truncated)
                kept[number] = result
        tables.append(
            to_arrow(
                list(kept.values()),
                [columns["domain"][n] for n in kept],
                [columns["row"][n] for n in kept],
            )
        )
    write_json(task.notes, {str(domain): noted.as_dict() for domain, noted in notes.items()})
    write_shard(task.target, pa.concat_tables(tables).combine_chunks())


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


def _check_length(checkpoint: Path, max_length: int) -> None:
    """Refuse sequences longer than the model's positions, before any work."""
    config = checkpoint / "config.json"
    limit = read_json(config).get("max_position_embeddings") if config.is_file() else None
    if limit is not None and max_length > limit:
        raise VersatuneError(
            f"tokenize.max_length is {max_length}, but {checkpoint} takes {limit} tokens at most."
        )
