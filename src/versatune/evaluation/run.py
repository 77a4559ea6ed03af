"""Measure a checkpoint: what was measured before is read, the rest is measured now.

Each part (the held-out losses, a task) is a folder below ``params.folder``, by the checkpoint's
fingerprint, so an interrupted evaluation goes on and a repeated one costs no model load. What was
measured by other versions of the libraries is measured again.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from versatune.artifacts import FolderRef, WorkFolder, exclusive
from versatune.domains import choose
from versatune.evaluation import harness
from versatune.evaluation.config import EvaluateParams
from versatune.evaluation.heldout import measure_heldout
from versatune.evaluation.results import (
    COLUMNS,
    HELD_OUT,
    ITEM_COLUMNS,
    Measured,
    described_versions,
    library_versions,
)
from versatune.evaluation.sandbox import check_isolation
from versatune.evaluation.tasks import LocalTask
from versatune.modeling.checkpoints import CheckpointRef, load_model, load_tokenizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """Something to measure: where it is kept, what decides its numbers, how it is done."""

    name: str
    inputs: dict[str, Any]
    measure: Callable[[Any, Any], Measured]


def evaluate_checkpoint(
    checkpoint: CheckpointRef,
    *,
    model: str,
    store: FolderRef,
    tasks: Sequence[LocalTask],
    params: EvaluateParams,
) -> Measured:
    """Every measurement of ``checkpoint``, as the ``evaluation`` and ``evaluation_items`` tables.

    ``model`` is what the tables call it. Raises VersatuneError before any model is loaded when a
    task of the harness is unknown, or when programs are to be run and can't be isolated.
    """
    parts = list(_parts(store, tasks, params))
    folder = params.folder / checkpoint.fingerprint
    with exclusive(folder / ".lock", f"the evaluation of {checkpoint.name}"):
        works = [
            WorkFolder.open(
                folder / part.name, {"checkpoint": checkpoint.fingerprint, **part.inputs}
            )
            for part in parts
        ]
        open_parts = [(p, w) for p, w in zip(parts, works, strict=True) if not w.complete]
        if open_parts:
            _measure(checkpoint, open_parts, params)
        else:
            logger.info("%s: all %d measurements were there.", model, len(parts))
        found = [_read(work) for work in works]
    return _join(model, checkpoint, found)


def _parts(store: FolderRef, tasks: Sequence[LocalTask], params: EvaluateParams) -> Iterator[Part]:
    common: dict[str, Any] = {"dtype": params.dtype, "versions": library_versions()}
    yield Part(
        HELD_OUT,
        {
            **common,
            "store": store.fingerprint,
            "rows_per_domain": params.rows_per_domain,
            "seed": params.seed,
        },
        partial(measure_heldout, store, params),
    )
    common |= {"limit": params.limit}
    for task in tasks:
        if task.runs_code and not params.code.run:
            logger.warning(
                "%s (%s) is left out: it runs programs written by the model, and "
                "evaluate.code.run is false.",
                task.path,
                task.domain,
            )
            continue
        yield Part(
            f"{task.domain}-{task.name}",
            {**common, "task": task.fingerprint, **_settings(task, params)},
            partial(harness.measure_local, task, params),
        )
    domains = store.facts["domains"]
    for given, names in params.harness.tasks.items():
        domain = choose(given, domains, "evaluate.harness.tasks")
        for name in names:
            yield Part(
                f"{domain}-harness-{name}",
                {
                    **common,
                    "harness": name,
                    "chat": params.apply_chat_template,
                    "num_fewshot": params.harness.num_fewshot,
                    "include_path": params.harness.content(),
                    "seed": params.seed,
                },
                partial(harness.measure_named, domain, name, params),
            )


def _settings(task: LocalTask, params: EvaluateParams) -> dict[str, Any]:
    """The parameters that change the numbers of one local file."""
    if task.runs_code:
        return params.code.model_dump(exclude={"run"})
    settings: dict[str, Any] = {"chat": params.apply_chat_template}
    if task.kind == "generation":
        settings["max_new_tokens"] = params.max_new_tokens
    return settings


def _measure(
    checkpoint: CheckpointRef, parts: list[tuple[Part, WorkFolder]], params: EvaluateParams
) -> None:
    if any("sandbox" in part.inputs for part, _ in parts):
        check_isolation()
    if any("harness" in part.inputs for part, _ in parts):
        harness.check_names(params.harness.tasks, params)
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = load_model(checkpoint, dtype=params.dtype)
    model = model.to(device)
    tokenizer = load_tokenizer(checkpoint)
    for number, (part, work) in enumerate(parts, start=1):
        logger.info("%s: %s (%d of %d)", checkpoint.name, part.name, number, len(parts))
        measured = part.measure(model, tokenizer)
        rows = measured.rows.assign(versions=described_versions())
        rows.to_parquet(work.path / "rows.parquet", index=False)
        measured.items.to_parquet(work.path / "items.parquet", index=False)
        work.seal()


def _read(work: WorkFolder) -> Measured:
    return Measured(
        pd.read_parquet(work.path / "rows.parquet"), pd.read_parquet(work.path / "items.parquet")
    )


def _join(model: str, checkpoint: CheckpointRef, found: list[Measured]) -> Measured:
    rows = pd.concat([f.rows for f in found], ignore_index=True)
    rows = rows.assign(model=model, checkpoint=checkpoint.fingerprint)[list(COLUMNS)]
    items = pd.concat([f.items for f in found], ignore_index=True)
    items = items.assign(model=model)[list(ITEM_COLUMNS)]
    return Measured(rows, items)
