"""Tokenising: from cleaned rows to the store that training and evaluation read.

Each shard of cleaned rows becomes one shard of the store, written in one step; an interrupted run
continues with the shards that are missing. The result does not depend on the number of
processes, nor on how many machines they are on.

Raises VersatuneError: ``max_length`` is more than the model takes; the tokenizer has no fast form;
rows hold tokens that the model has no embeddings for; a domain has no rows left in a split;
cleaning and tokenising together lose more of a domain's rows than ``ingest.max_reject_rate``
allows; a worker process died.
"""

import contextlib
import logging
import os
import pickle
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from versatune.artifacts import (
    FolderRef,
    file_digest,
    fingerprint,
    read_json,
    temporary_beside,
    write_json,
)
from versatune.data.accounts import TokenNotes
from versatune.data.arrow import describe, read_shard
from versatune.data.clean import SPLITS
from versatune.data.config import TokenizeParams
from versatune.data.conversations import RejectedError
from versatune.data.lengths import saved_token_limit, saved_vocabulary
from versatune.data.limits import check_losses, check_rows, tell_kept
from versatune.data.preview import preview
from versatune.errors import VersatuneError
from versatune.work import ParallelParams, Piece, bars
from versatune.work.calls import Call
from versatune.work.parallel import side_by_side

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from versatune.data.documents import DocumentSpec
    from versatune.data.encode import EncoderSpec
    from versatune.data.shards import Encoders, Task

logger = logging.getLogger(__name__)

LOCAL = ParallelParams()
ROWS_PER_WORKER = 25_000
"""Below this many rows another process is not worth its start."""
REPORT = "report.json"
EXAMPLES = "examples.json"
"""Some rows as they are trained on; see ``preview``."""
VERSION = 9
"""Raised when the same rows would get other texts, tokens or labels: kept stores are not used."""
TOKENIZER_FILES = (
    *("token", "vocab", "merges", "special", "added", "chat_template", "config.json"),
    "additional_chat_templates",
)
"""How the names of a tokenizer's files begin; the last is a folder."""


def tokenize(
    data: FolderRef,
    checkpoint: Path,
    load_tokenizer: Callable[[Path], "PreTrainedTokenizerBase"],
    params: TokenizeParams,
    parallel: ParallelParams = LOCAL,
) -> Piece:
    """The rows of :func:`versatune.data.clean.clean` as tokens.

    ``checkpoint``: the Hugging Face folder with the tokenizer, read by ``load_tokenizer`` only
    when there is work. ``parallel`` names the engine: with Ray the shards are spread over the
    cluster, whose machines see the same files.

    Metadata of the store: ``domains``, ``max_length``, ``tokenizer`` (stands for its files),
    ``data_fingerprint``, and for each split and domain ``rows``, ``tokens`` and
    ``supervised_tokens``. ``report.json`` counts, for each domain, rows that were dropped or
    truncated, and for each split the ``*_rows`` of the data that stay and the ``*_examples`` that
    they became: the rows of the store. ``examples.json`` shows some of these (``preview``).
    """
    _check_length(checkpoint, params.max_length)
    inputs = {
        "version": VERSION,
        "parameters": params.model_dump(mode="json", exclude={"num_workers"}),
        "data": data.fingerprint,
        "tokenizer": tokenizer_fingerprint(checkpoint),
    }
    return Piece(inputs, partial(_tokenize, data, checkpoint, load_tokenizer, params, parallel))


def tokenizer_fingerprint(checkpoint: Path) -> str:
    """16 hex digits that stand for the tokenizer in a checkpoint folder, not for its weights."""
    there = sorted(f for f in checkpoint.iterdir() if f.name.startswith(TOKENIZER_FILES))
    files = [f for f in there if f.is_file()]
    files += sorted(f for folder in there for f in folder.glob("*.jinja"))
    files += sorted(checkpoint.glob("*.model"))
    return fingerprint({f.name: file_digest(f) for f in files})


def _tokenize(
    data: FolderRef,
    checkpoint: Path,
    load_tokenizer: Callable[[Path], "PreTrainedTokenizerBase"],
    params: TokenizeParams,
    parallel: ParallelParams,
    folder: Path,
) -> dict[str, Any]:
    from versatune.data.answers import Answers
    from versatune.data.documents import DocumentSpec
    from versatune.data.encode import SCHEMA, EncoderSpec
    from versatune.data.shards import Encoders, Task
    from versatune.data.store import write_index

    tokenizer = load_tokenizer(checkpoint)
    spec = EncoderSpec.of(tokenizer), DocumentSpec.of(tokenizer)
    encoder = Encoders.of(*spec, params)
    # A template that refuses the example will say so of the rows.
    with contextlib.suppress(RejectedError):
        answers = Answers(tokenizer)
        if answers.end is None:
            logger.warning(
                "the chat template ends no answer with a control token, and the tokenizer has no "
                "end token: a model trained with it does not learn to stop."
            )
        if asked := answers.prompt_alone:
            logger.warning(
                "the chat template asks for an answer with %r, which rows without a thought do not "
                "have: give the answers their thoughts (reasoning_content), or ask the trained "
                "model with thinking off (enable_thinking=False).",
                asked,
            )
    names: list[str] = data.metadata["domains"]
    tasks = {
        split: [
            Task(shard, folder / split / shard.name)
            for shard in sorted((data.path / split).glob("data-*.arrow"))
        ]
        for split in SPLITS
    }
    todo = [task for split in SPLITS for task in tasks[split] if not task.done]
    rows = sum(sum(of_split.values()) for of_split in data.metadata["rows"].values())
    _run(todo, spec, encoder, params, rows, parallel, folder)
    _check_vocabulary(checkpoint, tokenizer, [task for split in SPLITS for task in tasks[split]])
    facts: dict[str, Any] = {}
    totals = {name: TokenNotes() for name in names}
    kept: dict[str, dict[str, int]] = {name: {} for name in names}
    notes_of = {split: _collect(tasks[split], names, totals) for split in SPLITS}
    without = data.metadata.get("only_own", [])
    needed = {s: {n: c for n, c in of.items() if n not in without} for s, of in notes_of.items()}
    check_rows(needed["train"], "train", params.max_length)
    check_losses(read_json(data.path / REPORT), totals, data.metadata["max_reject_rate"])
    for split in SPLITS[1:]:
        check_rows(needed[split], split, params.max_length)
    for split, found in notes_of.items():
        facts[split] = {
            name: {
                "rows": n.examples,
                "tokens": n.tokens,
                "supervised_tokens": n.supervised_tokens,
            }
            for name, n in found.items()
        }
        for name, notes in found.items():
            kept[name] |= {f"{split}_rows": notes.rows, f"{split}_examples": notes.examples}
        describe(folder / split, [task.target.name for task in tasks[split]], SCHEMA)
        write_index(folder / split)
    for name in (n for n in names if n not in without):
        tell_kept(name, totals[name], kept[name])
    write_json(folder / REPORT, {name: {**n.as_dict(), **kept[name]} for name, n in totals.items()})
    write_json(folder / EXAMPLES, preview(data, tokenizer, encoder))
    return {
        "domains": names,
        "max_length": params.max_length,
        "tokenizer": tokenizer_fingerprint(checkpoint),
        "data_fingerprint": data.metadata["data_fingerprint"],
        "thoughts": {name: _thoughts(notes_of["train"][name]) for name in names},
        **facts,
    }


def _run(
    todo: "list[Task]",
    spec: "tuple[EncoderSpec, DocumentSpec]",
    encoder: "Encoders",
    params: TokenizeParams,
    rows: int,
    parallel: ParallelParams,
    folder: Path,
) -> None:
    """Make the shards, in this process or in several, here or on the machines of a cluster."""
    workers = params.num_workers
    if parallel.engine == "local":
        available = len(os.sched_getaffinity(0))
        workers = workers or max(1, min(available, rows // ROWS_PER_WORKER))
        workers = min(workers, len(todo))
    if workers is not None and workers <= 1:
        from versatune.data.shards import make_shard

        for task in bars.each(todo, len(todo), "tokenising", "shards"):
            make_shard(task, encoder)
        return
    given = temporary_beside(folder / "encoder")
    given.write_bytes(pickle.dumps((*spec, params)))
    try:
        calls = [
            Call(
                f"{task.target.parent.name}/{task.target.name}",
                _work,
                {"task": task.absolute(), "given": given.absolute()},
            )
            for task in todo
        ]
        side_by_side(calls, ParallelParams(engine=parallel.engine, workers=workers, cpus=1, gpus=0))
    finally:
        given.unlink(missing_ok=True)


def _work(task: "Task", given: Path) -> None:
    """Make a shard in a worker, which is one thread: there are as many as are wanted."""
    from versatune.data.shards import make_shard

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    make_shard(task, _encoders(given))


@cache
def _encoders(given: Path) -> "Encoders":
    """Read once a worker; another tokenising has a file of another name."""
    from versatune.data.shards import Encoders

    spec, documents, params = pickle.loads(given.read_bytes())
    return Encoders.of(spec, documents, params)


def _collect(
    tasks: "list[Task]", names: list[str], totals: dict[str, TokenNotes]
) -> dict[str, TokenNotes]:
    """The counts of one split's shards by domain, which are also added to ``totals``."""
    found = {name: TokenNotes() for name in names}
    for task in tasks:
        for domain, entry in read_json(task.notes).items():
            found[names[int(domain)]].merge(entry)
            totals[names[int(domain)]].merge(entry)
    return found


def _check_vocabulary(
    checkpoint: Path, tokenizer: "PreTrainedTokenizerBase", tasks: "list[Task]"
) -> None:
    """Refuse rows with tokens that the tokenizer has and the model lacks."""
    known = saved_vocabulary(checkpoint)
    if known is None or len(tokenizer) <= known:
        return
    for task in tasks:
        ids = read_shard(task.target).column("input_ids").combine_chunks().flatten()
        last = pc.max(ids).as_py()
        if last is not None and last >= known:
            token = tokenizer.convert_ids_to_tokens(last)
            raise VersatuneError(
                f"{checkpoint}: its tokenizer has {len(tokenizer)} tokens and its model {known}, "
                f"and rows hold {last} ({token!r}): call "
                "model.resize_token_embeddings(len(tokenizer)) and save both."
            )


def _thoughts(notes: TokenNotes) -> str | None:
    """How many of a domain's conversations hold a thought: ``all``, ``some`` or ``none``."""
    conversations = notes.rows - notes.documents
    if not conversations:
        return None
    return {0: "none", conversations: "all"}.get(notes.thoughts, "some")


def _check_length(checkpoint: Path, max_length: int) -> None:
    """Refuse sequences longer than the model's positions, before any work."""
    limit = saved_token_limit(checkpoint)
    if limit is not None and max_length > limit:
        raise VersatuneError(
            f"tokenize.max_length is {max_length}, but {checkpoint} takes {limit} tokens at most."
        )
