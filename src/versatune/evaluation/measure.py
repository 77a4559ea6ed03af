"""Measure a checkpoint: read kept results, measure the rest.

Each part (the held-out losses, a task) is a folder below the one given, by the checkpoint's
fingerprint, so an interrupted evaluation continues and a repeated one loads no model. Results of
other versions of the libraries are measured again.
"""

import contextlib
import gc
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from versatune.artifacts import FolderRef, exclusive
from versatune.domains import choose
from versatune.errors import VersatuneError
from versatune.evaluation import harness, ranks
from versatune.evaluation.at_work import named_bars
from versatune.evaluation.config import EvaluateParams
from versatune.evaluation.examples import ANSWER_COLUMNS, answer_prompts
from versatune.evaluation.heldout import measure_heldout
from versatune.evaluation.results import (
    COLUMNS,
    HELD_OUT,
    ITEM_COLUMNS,
    Measured,
    described_versions,
    library_versions,
    table,
)
from versatune.evaluation.sandbox import check_isolation
from versatune.evaluation.tasks import LocalTask
from versatune.modeling.checkpoints import CheckpointRef, load_model, load_tokenizer
from versatune.modeling.engines import takes_static_cache
from versatune.modeling.room import check_room
from versatune.work import WorkFolder
from versatune.work.bars import Paced

logger = logging.getLogger(__name__)

EXAMPLES = "examples"
"""The part with the answers to held-out prompts; no task is called so, as it has no domain."""
ANSWERING = 3
"""Raised when the same prompts get other answers, so that kept ones are not used."""
ANSWERS = "answers.parquet"
EVERY = 30.0
"""Seconds between the lines that say what is measured."""


@dataclass(frozen=True)
class Part:
    """A measurement: where it is kept, what decides its numbers, how it is done."""

    name: str
    inputs: dict[str, Any]
    measure: Callable[[Any, Any], Measured | None]
    """Takes model and tokenizer. Among several processes, only the first has the result."""

    @property
    def title(self) -> str:
        """The displayed name: a task with the domain's own name is called ``law``."""
        if self.name == HELD_OUT:
            return "held-out losses"
        domain, _, task = self.name.partition("-")
        return domain if task == domain else self.name


def evaluate_checkpoint(
    checkpoint: CheckpointRef,
    *,
    model: str,
    store: FolderRef,
    tasks: Sequence[LocalTask],
    params: EvaluateParams,
    folder: Path,
    answers: bool = False,
    wait: bool = False,
) -> Measured:
    """Every measurement of ``checkpoint``, as the ``evaluation`` and ``evaluation_items`` tables.

    ``model`` is what the tables call it, ``folder`` where results are kept; ``answers``: whether it
    also answers ``params.examples`` prompts of each domain. With ``wait``, the call waits for
    another process that measures the same checkpoint; otherwise that is an error. Raises
    VersatuneError before any model is loaded when a task of the harness is unknown, when two tasks
    have one name, or when programs are to be run and can't be isolated.
    """
    parts = parts_of(store, tasks, params)
    if answers and params.examples:
        parts.append(_examples(store, params))
    for task in tasks:
        if _is_left_out(task, params):
            logger.warning(
                "%s (%s) is left out: it runs programs written by the model, and "
                "evaluate.code.run is false.",
                task.path,
                task.domain,
            )
    folder = folder / checkpoint.fingerprint
    with exclusive(folder / ".lock", f"the evaluation of {checkpoint.name}", wait=wait):
        works = [
            WorkFolder.open(
                folder / part.name, {"checkpoint": checkpoint.fingerprint, **part.inputs}
            )
            for part in parts
        ]
        open_parts = [(p, w) for p, w in zip(parts, works, strict=True) if not w.complete]
        if open_parts:
            _measure(checkpoint, open_parts, params)
        found = [_read(work) for work in works]
    return _join(model, checkpoint, found)


def parts_of(store: FolderRef, tasks: Sequence[LocalTask], params: EvaluateParams) -> list[Part]:
    """All measurements. Raises VersatuneError when two tasks of a domain have one name."""
    thoughts = store.metadata.get("thoughts", {})
    inputs = _inputs(params.of_heldout(), store=store.fingerprint)
    found = [Part(HELD_OUT, inputs, partial(measure_heldout, store, params))]
    for task in tasks:
        if not _is_left_out(task, params):
            own = {"thoughts": thoughts.get(task.domain)}
            inputs = _inputs(params.of_file(task.kind) | own, task=task.fingerprint)
            measure = partial(harness.measure_local, task, params, **own)
            found.append(Part(f"{task.domain}-{task.name}", inputs, measure))
    for given, names in params.harness.tasks.items():
        domain = choose(given, store.metadata["domains"], "evaluate.harness.tasks")
        own = {"thoughts": thoughts.get(domain)}
        for name in names:
            inputs = _inputs(params.of_harness() | own, harness=name)
            measure = partial(harness.measure_named, domain, name, params, **own)
            found.append(Part(f"{domain}-{name}", inputs, measure))
    for name, times in Counter(part.name for part in found).items():
        if times > 1:
            raise _two_tasks(*name.split("-", maxsplit=1))
    return found


def _examples(store: FolderRef, params: EvaluateParams) -> Part:
    inputs = _inputs(params.of_examples(), answering=ANSWERING, store=store.fingerprint)
    return Part(EXAMPLES, inputs, partial(answer_prompts, store, params))


def _inputs(settings: dict[str, Any], **what: Any) -> dict[str, Any]:
    return {"versions": library_versions(), **what, **settings}


def _is_left_out(task: LocalTask, params: EvaluateParams) -> bool:
    return task.runs_code and not params.code.run


def _two_tasks(domain: str, name: str) -> VersatuneError:
    return VersatuneError(
        f"two tasks of {domain} are called {name!r}: name each task once in "
        f"evaluate.harness.tasks, and give a file in domains.{domain}.evaluation another `task`."
    )


def _measure(
    checkpoint: CheckpointRef, parts: list[tuple[Part, WorkFolder]], params: EvaluateParams
) -> None:
    if any("sandbox" in part.inputs for part, _ in parts):
        check_isolation()
    if any("harness" in part.inputs for part, _ in parts):
        harness.check_names(params.harness.tasks, params)
    if params.processes > 1:
        ranks.together(partial(_measure_open, checkpoint, parts, params), params.processes)
    else:
        _measure_open(checkpoint, parts, params)


def _measure_open(
    checkpoint: CheckpointRef, parts: list[tuple[Part, WorkFolder]], params: EvaluateParams
) -> None:
    """Measure these parts, together with the other processes if there are any."""
    tokenizer = load_tokenizer(checkpoint)
    asked: list[tuple[Part, WorkFolder]] = []
    if params.engine == "vllm":  # it asks the tasks, and needs the GPU's memory for itself
        asked = [(part, work) for part, work in parts if part.name not in (HELD_OUT, EXAMPLES)]
    if own := [each for each in parts if each not in asked]:
        _measure_with(_load(checkpoint, params), tokenizer, checkpoint, own)
    if asked:
        from versatune.evaluation.in_vllm import load_in_vllm

        gc.collect()
        torch.cuda.empty_cache()
        model = load_in_vllm(checkpoint, tokenizer, params)
        _measure_with(model, tokenizer, checkpoint, asked)


def _measure_with(
    model: Any, tokenizer: Any, checkpoint: CheckpointRef, parts: list[tuple[Part, WorkFolder]]
) -> None:
    paced = Paced(EVERY)
    for number, (part, work) in enumerate(parts, start=1):
        if paced.due() and ranks.rank() == 0:
            logger.info(
                "Evaluating %s: %s (task %d of %d)", checkpoint.name, part.title, number, len(parts)
            )
        in_harness = part.name != HELD_OUT
        with named_bars(part.title) if in_harness else contextlib.nullcontext():
            measured = part.measure(model, tokenizer)
        if measured is None or ranks.rank():  # the first process keeps it
            continue
        rows = measured.rows.assign(versions=described_versions())
        rows.to_parquet(work.path / "rows.parquet", index=False)
        measured.items.to_parquet(work.path / "items.parquet", index=False)
        if len(measured.answers):
            measured.answers.to_parquet(work.path / ANSWERS, index=False)
        work.seal()


def _load(checkpoint: CheckpointRef, params: EvaluateParams) -> Any:
    """The model where and as it is measured."""
    devices = max(1, torch.cuda.device_count()) if params.parallelize else 1
    check_room(checkpoint.path, dtype=params.dtype, key="evaluate", devices=devices)
    model: Any = load_model(checkpoint, dtype=params.dtype, parallelize=params.parallelize)
    if params.engine == "static":
        if not takes_static_cache(model):
            raise VersatuneError(
                f"evaluate.engine is static, and {type(model).__name__} can't generate from a "
                "cache of fixed size: use auto."
            )
        model.generation_config.cache_implementation = "static"
    if params.parallelize:
        return model
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def _read(work: WorkFolder) -> Measured:
    answers = work.path / ANSWERS
    return Measured(
        pd.read_parquet(work.path / "rows.parquet"),
        pd.read_parquet(work.path / "items.parquet"),
        pd.read_parquet(answers) if answers.is_file() else table([], ANSWER_COLUMNS),
    )


def _join(model: str, checkpoint: CheckpointRef, found: list[Measured]) -> Measured:
    """All parts in one. A task that stands alone and in a group, or in two groups, counts once."""
    keys = ["domain", "task", "metric"]
    rows = pd.concat([f.rows for f in found if len(f.rows)])
    rows = rows.drop_duplicates([*keys, "task_version"], ignore_index=True)
    for row in rows[rows.duplicated(keys)].to_dict("records"):
        raise _two_tasks(row["domain"], row["task"])
    rows = rows.assign(model=model, checkpoint=checkpoint.fingerprint)[list(COLUMNS)]
    items = pd.concat([f.items for f in found if len(f.items)])
    items = items.drop_duplicates([*keys, "item"], ignore_index=True)
    items = items.assign(model=model)[list(ITEM_COLUMNS)]
    answers = [f.answers for f in found if len(f.answers)]
    return Measured(rows, items, answers[0] if answers else table([], ANSWER_COLUMNS))
