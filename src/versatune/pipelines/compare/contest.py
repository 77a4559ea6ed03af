"""One run of a comparison: train with one strategy and seed, evaluate, keep the numbers."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict

from versatune import tracking
from versatune.artifacts import FolderRef, WorkFolder
from versatune.evaluation import forgetting
from versatune.evaluation.comparison import COMPARISON_COLUMNS
from versatune.evaluation.config import BASE, EvaluateParams
from versatune.evaluation.results import Measured
from versatune.evaluation.run import evaluate_checkpoint, parts_of
from versatune.evaluation.tasks import LocalTask
from versatune.modeling.checkpoints import CheckpointRef
from versatune.pipelines.evaluate.nodes import metric_values
from versatune.training.api import train
from versatune.training.config import TrainParams

logger = logging.getLogger(__name__)


class Start(BaseModel):
    """What every run starts from, by domain."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    initial_weights: dict[str, float]
    reference_losses: dict[str, float] | None
    detected_shares: dict[str, float]
    law: dict[str, Any] | None = None
    """Slopes measured with the references."""


class Run(BaseModel):
    """One strategy with one seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: str
    """Its name in the comparison."""
    seed: int
    train: TrainParams

    @property
    def folder(self) -> Path:
        return self.train.folder.parent


class Plan(BaseModel):
    """The runs of one kind of strategy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runs: tuple[Run, ...]
    start: Start


class Field(BaseModel):
    """What all runs of a comparison share."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    store: FolderRef
    base: CheckpointRef
    tasks: tuple[LocalTask, ...]
    evaluate: EvaluateParams
    keep_models: bool


def contest(plan: Plan, field: Field) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every run of ``plan``, one or more: rows of ``comparison``, and the mixtures' history."""
    base = _evaluate(field, field.base, BASE)
    rows, histories = [], []
    for run in plan.runs:
        with tracking.child_run(f"{run.strategy} seed {run.seed}", _described(run)):
            found, history = one_run(run, plan.start, field, base)
            tracking.log_metrics(_final(found))
        about: dict[str, Any] = {
            "strategy": run.strategy,
            "kind": run.train.strategy.name,
            "seed": run.seed,
        }
        rows.append(found.assign(**about))
        histories.append(history.assign(**about))
    joined = pd.concat(rows, ignore_index=True)[list(COMPARISON_COLUMNS)]
    return joined, pd.concat(histories, ignore_index=True)


def one_run(
    run: Run, start: Start, field: Field, base: Measured
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train and evaluate, or read what was found before; weights are dropped when not to be kept.

    The result's folder is written last, so a run that was cut off goes on where it was.
    """
    work = WorkFolder.open(
        run.folder / "result",
        {
            "base": field.base.fingerprint,
            "store": field.store.fingerprint,
            "train": run.train.deciding(),
            "start": start.model_dump(),
            "evaluate": {
                part.name: part.inputs
                for part in parts_of(field.store, field.tasks, field.evaluate)
            },
        },
    )
    if work.complete:
        logger.info("%s, seed %d: done before", run.strategy, run.seed)
        tracking.set_tags({"versatune.reused": "true"})
    else:
        logger.info("%s, seed %d: training", run.strategy, run.seed)
        _train_and_evaluate(run, start, field, base, work)
    if not field.keep_models and run.train.folder.exists():
        shutil.rmtree(run.train.folder)
    return (
        pd.read_parquet(work.path / "rows.parquet"),
        pd.read_parquet(work.path / "history.parquet"),
    )


def _train_and_evaluate(
    run: Run, start: Start, field: Field, base: Measured, work: WorkFolder
) -> None:
    trained = train(
        field.store,
        field.base,
        run.train,
        initial_weights=start.initial_weights,
        reference_losses=start.reference_losses,
        detected_shares=start.detected_shares,
        law=start.law,
        folder=run.train.folder,
        on_round=_log,
    )
    tuned = CheckpointRef.made_here(trained.model_ref.path, run.strategy)
    measured = _evaluate(field, tuned, run.strategy)
    rows = against_base(base, measured, run.strategy)
    rows.to_parquet(work.path / "rows.parquet", index=False)
    measured.items.to_parquet(work.path / "items.parquet", index=False)
    trained.history.to_parquet(work.path / "history.parquet", index=False)
    work.seal(ended=trained.model_ref.facts["ended"])


def against_base(base: Measured, measured: Measured, name: str) -> pd.DataFrame:
    """The rows of one run, with the base model's number and the paired change beside each."""
    both = pd.concat([base.rows, measured.rows], ignore_index=True)
    items = pd.concat([base.items, measured.items], ignore_index=True)
    changes = forgetting.changes(both, items, BASE, name)
    changes = changes.rename(columns={"low": "change_low", "high": "change_high"})
    keys = ["domain", "task", "metric"]
    extra = ["base", "change", "change_low", "change_high", "became_wrong", "became_right"]
    return measured.rows.merge(changes[keys + extra], on=keys, how="left", validate="1:1")


def _evaluate(field: Field, checkpoint: CheckpointRef, name: str) -> Measured:
    return evaluate_checkpoint(
        checkpoint, model=name, store=field.store, tasks=field.tasks, params=field.evaluate
    )


def _described(run: Run) -> Mapping[str, Any]:
    """The parameters a person compares runs by."""
    about = ("rounds", "steps_per_round", "unit", "learning_rate", "max_length")
    return {
        "strategy": {"label": run.strategy, **run.train.strategy.model_dump()},
        "seed": run.seed,
        "train": {name: getattr(run.train, name) for name in about},
    }


def _final(rows: pd.DataFrame) -> dict[str, float]:
    """A run's last numbers, without its name before them, so that runs stand side by side."""
    return metric_values(rows.assign(model="final"))


def _log(event: dict[str, Any]) -> None:
    tracking.log_metrics(event["metrics"], step=event["step"])
