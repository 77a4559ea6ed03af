"""The runs of a comparison: train with one strategy and seed, evaluate, keep the numbers."""

import contextlib
import logging
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel

from versatune.artifacts import FolderRef
from versatune.evaluation import forgetting
from versatune.evaluation.comparison import COMPARISON_COLUMNS, COMPARISON_ITEM_COLUMNS
from versatune.evaluation.config import BASE, EvaluateParams
from versatune.evaluation.measure import evaluate_checkpoint, parts_of
from versatune.evaluation.results import Measured, metric_values
from versatune.evaluation.tasks import LocalTask
from versatune.modeling.checkpoints import CheckpointRef
from versatune.training.api import train
from versatune.training.config import TrainParams
from versatune.training.job import MixtureInputs
from versatune.work import Piece
from versatune.work.bars import KEPT
from versatune.work.calls import emit
from versatune.work.pieces import Began, Ended, Failed

logger = logging.getLogger(__name__)

ROWS, HISTORY, ITEMS = "rows.parquet", "history.parquet", "items.parquet"


class Run(BaseModel, frozen=True, extra="forbid"):
    """One strategy with one seed."""

    strategy: str
    """Its name in the comparison."""
    seed: int
    train: TrainParams

    @property
    def name(self) -> str:
        """The folder of its results, below that of all runs."""
        return f"{self.strategy}/seed_{self.seed}/result"

    @property
    def labels(self) -> dict[str, Any]:
        """What its rows carry beside the numbers."""
        return {"strategy": self.strategy, "kind": self.train.strategy.name, "seed": self.seed}


class Plan(BaseModel, frozen=True, extra="forbid"):
    """The runs of a comparison, seed by seed."""

    runs: tuple[Run, ...]
    start: MixtureInputs
    """What every run starts from."""


class ComparisonSetup(BaseModel, frozen=True, arbitrary_types_allowed=True):
    """What all runs of a comparison share."""

    store: FolderRef
    base: CheckpointRef
    tasks: tuple[LocalTask, ...]
    evaluate: EvaluateParams
    evaluations: Path
    """Where measurements are kept by checkpoint."""
    keep_models: bool


def pieces(plan: Plan, setup: ComparisonSetup) -> dict[str, Piece]:
    """Every run of ``plan``, by name; the base model, their common baseline, is measured now."""
    base = _evaluate(setup, setup.base, BASE)
    evaluated = {
        part.name: part.inputs for part in parts_of(setup.store, setup.tasks, setup.evaluate)
    }
    return {
        run.name: Piece(
            inputs={
                "base": setup.base.fingerprint,
                "store": setup.store.fingerprint,
                "train": run.train.fingerprint_fields(),
                "start": plan.start.model_dump(),
                "evaluate": evaluated,
            },
            make=partial(_train_and_evaluate, run, plan.start, setup, base),
            around=partial(_reported, run, setup.keep_models),
        )
        for run in plan.runs
    }


def read_runs(
    plan: Plan, folders: Mapping[str, FolderRef]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Of the finished runs of ``plan`` rows of ``comparison``, the mixtures' history and scores of
    single items, strategy by strategy."""
    order = list(dict.fromkeys(run.strategy for run in plan.runs))
    runs = sorted(plan.runs, key=lambda run: (order.index(run.strategy), run.seed))
    rows, histories, items = (
        pd.concat(
            [pd.read_parquet(folders[run.name].path / file).assign(**run.labels) for run in runs],
            ignore_index=True,
        )
        for file in (ROWS, HISTORY, ITEMS)
    )
    return rows[list(COMPARISON_COLUMNS)], histories, items[list(COMPARISON_ITEM_COLUMNS)]


def described(plan: Plan) -> dict[str, tuple[str, dict[str, Any]]]:
    """For each run its displayed name, and the parameters that distinguish it."""
    about = ("rounds", "steps_per_round", "unit", "learning_rate", "max_length")
    return {
        run.name: (
            f"{run.strategy} seed {run.seed}",
            {
                "strategy": {"label": run.strategy, **run.train.strategy.model_dump()},
                "seed": run.seed,
                "train": {name: getattr(run.train, name) for name in about},
            },
        )
        for run in plan.runs
    }


@contextlib.contextmanager
def _reported(run: Run, keep_model: bool, folder: Path, whole: bool) -> Iterator[None]:
    """Report the run's start and end (:func:`emit`); delete weights that are not to be kept."""
    emit(Began(whole))
    if whole:
        logger.info(KEPT, f"{run.strategy} seed {run.seed}")
    try:
        yield
        if not keep_model and _model_of(folder).exists():
            shutil.rmtree(_model_of(folder))
        emit(Ended(metric_values(pd.read_parquet(folder / ROWS).assign(model="final"))))
    except Exception:
        emit(Failed())
        raise


def _train_and_evaluate(
    run: Run, start: MixtureInputs, setup: ComparisonSetup, base: Measured, folder: Path
) -> dict[str, Any]:
    """Train and evaluate; the numbers are written last, so a run that was cut off continues."""
    trained = train(
        setup.store,
        setup.base,
        run.train,
        folder=_model_of(folder),
        on_round=emit,
        **dict(start),
    )
    tuned = CheckpointRef.from_manifest(trained.model_ref.path, run.strategy)
    measured = _evaluate(setup, tuned, run.strategy)
    against_base(base, measured, run.strategy).to_parquet(folder / ROWS, index=False)
    measured.items.to_parquet(folder / ITEMS, index=False)
    trained.history.to_parquet(folder / HISTORY, index=False)
    return {"ended": trained.model_ref.metadata["ended"]}


def _model_of(folder: Path) -> Path:
    """Where a run trains: beside its results."""
    return folder.with_name("model")


def against_base(base: Measured, measured: Measured, name: str) -> pd.DataFrame:
    """The rows of one run, with the base model's number and the paired change beside each."""
    both = pd.concat([base.rows, measured.rows], ignore_index=True)
    items = pd.concat([base.items, measured.items], ignore_index=True)
    changes = forgetting.changes(both, items, BASE, name)
    changes = changes.rename(columns={"low": "change_low", "high": "change_high"})
    keys = ["domain", "task", "metric"]
    extra = ["base", "change", "change_low", "change_high", "became_wrong", "became_right"]
    return measured.rows.merge(changes[keys + extra], on=keys, how="left", validate="1:1")


def _evaluate(setup: ComparisonSetup, checkpoint: CheckpointRef, name: str) -> Measured:
    return evaluate_checkpoint(
        checkpoint,
        model=name,
        store=setup.store,
        tasks=setup.tasks,
        params=setup.evaluate,
        folder=setup.evaluations,
        wait=True,  # runs that are made side by side may end with one checkpoint
    )
