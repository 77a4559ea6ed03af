"""Nodes of the compare pipeline."""

import logging
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from versatune import tracking
from versatune.artifacts import FolderRef
from versatune.comparing.config import CompareParams
from versatune.comparing.words import spoken
from versatune.data.config import Domains
from versatune.domains import choose
from versatune.errors import VersatuneError
from versatune.evaluation import comparison as against
from versatune.evaluation.config import EvaluateParams
from versatune.evaluation.objective import DeclaredObjective, reference_parts
from versatune.mixing.config import StrategyParams
from versatune.mixing.doubt import detected_shares
from versatune.mixing.traces import traces_of
from versatune.modeling.checkpoints import CheckpointRef
from versatune.pipelines.evaluate.nodes import local_tasks
from versatune.pipelines.train.nodes import known_references, warn_of_other_rows
from versatune.training.config import TrainParams
from versatune.work import ParallelParams, Pieces

logger = logging.getLogger(__name__)

KINDS: tuple[str, ...] = tuple(
    kind.model_fields["name"].default for kind in get_args(get_args(StrategyParams)[0])
)
"""Every kind of strategy there is: the instances of the train-and-evaluate template."""


def plan_runs(
    tokenized: FolderRef,
    initial_mixture: dict[str, Any],
    reference_losses: dict[str, Any],
    knowledge_distribution: dict[str, Any],
    params: CompareParams,
    train: TrainParams,
) -> tuple[dict[str, Any], ...]:
    """The runs of each kind of strategy, in the order of :data:`KINDS` (none where not asked)."""
    references = known_references(reference_losses)
    if params.target is not None:
        choose(params.target, tokenized.facts["domains"], "compare.target")
    for label, strategy in params.strategies.items():
        if strategy.needs_reference and references is None:
            raise VersatuneError(
                f"compare.strategies.{label} needs reference losses, and references.mode is "
                f"{reference_losses['mode']}."
            )
    worst = train.changed(params.train).objective.kind == "worst"
    needing = [label for label, s in params.strategies.items() if s.needs_reference or worst]
    for label in needing[:1]:
        of_first = _train_params(label, params.seeds[0], params, train)
        warn_of_other_rows(reference_losses, tokenized, of_first)
    start = {
        "initial_weights": initial_mixture["weights"],
        "reference_losses": references,
        "detected_shares": detected_shares(
            knowledge_distribution, initial_mixture, *params.strategies.values()
        ),
        "traces": traces_of(reference_losses),
    }
    return tuple(
        {
            "runs": [
                {
                    "strategy": label,
                    "seed": seed,
                    "train": _train_params(label, seed, params, train).model_dump(mode="json"),
                }
                for seed in params.seeds
                for label, strategy in params.strategies.items()
                if strategy.name == kind
            ],
            "start": start,
        }
        for kind in KINDS
    )


def _train_params(label: str, seed: int, params: CompareParams, train: TrainParams) -> TrainParams:
    own = {"strategy": params.strategies[label], "seed": seed, "resume": "restart"}
    return train.changed(params.train).model_copy(update=own)


def train_and_evaluate(
    plan: dict[str, Any],
    tokenized: FolderRef,
    base_model: dict[str, Any],
    domains: Domains,
    evaluate: EvaluateParams,
    params: CompareParams,
    parallel: ParallelParams,
    evaluations: Path,
) -> Pieces:
    """Every run of one kind of strategy; finished ones are found, interrupted ones go on."""
    if not plan["runs"]:
        return Pieces({}, parallel)
    from versatune.comparing.runs import ComparisonSetup, Plan, pieces
    from versatune.pipelines.compare.tracked import child_runs

    setup = ComparisonSetup(
        store=tokenized,
        base=CheckpointRef.from_entry(base_model),
        tasks=tuple(local_tasks(domains)),
        evaluate=evaluate,
        evaluations=evaluations,
        keep_models=params.keep_models,
    )
    planned = Plan.model_validate(plan)
    runs = {run.name: run for run in planned.runs}
    return Pieces(pieces(planned, setup), parallel, partial(child_runs, runs))


def collect_runs(
    plan: dict[str, Any], comparison_runs: dict[str, FolderRef]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Of one kind of strategy the rows of ``comparison``, the mixtures' history and the items."""
    if not plan["runs"]:
        empty = pd.DataFrame(columns=list(against.COMPARISON_ITEM_COLUMNS))
        return pd.DataFrame(columns=list(against.COMPARISON_COLUMNS)), pd.DataFrame(), empty
    from versatune.comparing.runs import Plan, read_runs

    return read_runs(Plan.model_validate(plan), comparison_runs)


def compare(
    params: CompareParams,
    train: TrainParams,
    reference_losses: dict[str, Any],
    *tables: pd.DataFrame,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """All runs in one table, their mixtures' history in another, and the verdicts on the objective.

    ``tables``: the rows of each kind, then the histories of each kind, then their items.
    """
    order = {label: i for i, label in enumerate(params.strategies)}
    k = len(KINDS)
    rows, histories, items = (
        pd.concat([t for t in tables[first : first + k] if len(t)], ignore_index=True).sort_values(
            ["strategy", "seed"], key=lambda c: c.map(order).fillna(c), kind="stable"
        )
        for first in (0, k, 2 * k)
    )
    declared = DeclaredObjective(
        train.changed(params.train).objective, reference_parts(reference_losses)
    )
    summary = against.summarise(rows, params.baseline, params.target, declared, items)
    for line in spoken(summary, declared.name):
        logger.info(line)
    tracking.log_metrics(against.headline(summary))
    return rows.reset_index(drop=True), histories.reset_index(drop=True), summary
