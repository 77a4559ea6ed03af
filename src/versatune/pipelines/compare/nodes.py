"""Nodes of the compare pipeline."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from versatune import tracking
from versatune.artifacts import FolderRef
from versatune.comparing.bases import read_comparison, with_other_bases
from versatune.comparing.config import CompareParams
from versatune.comparing.words import spoken
from versatune.data.config import Domains
from versatune.domains import choose
from versatune.errors import VersatuneError
from versatune.evaluation import comparison as against
from versatune.evaluation.config import EvaluateParams
from versatune.evaluation.objective import DeclaredObjective, reference_parts
from versatune.evaluation.tasks import domain_tasks
from versatune.mixing.doubt import detected_shares
from versatune.mixing.traces import traces_of
from versatune.modeling.checkpoints import CheckpointRef
from versatune.pipelines.train.nodes import known_references, warn_of_other_rows
from versatune.training.config import TrainParams
from versatune.work import ParallelParams, Pieces

logger = logging.getLogger(__name__)


def plan_runs(
    tokenized: FolderRef,
    initial_mixture: dict[str, Any],
    reference_losses: dict[str, Any],
    knowledge_distribution: dict[str, Any],
    params: CompareParams,
    train: TrainParams,
) -> dict[str, Any]:
    """Every strategy with every seed, seed by seed, and what all runs start from."""
    references = known_references(reference_losses)
    for name, folder in params.bases.items():  # what is missing is said before hours of runs
        read_comparison(folder, f"compare.bases.{name}")
    if params.target is not None:
        choose(params.target, tokenized.metadata["domains"], "compare.target")
    for label, strategy in params.strategies.items():
        if strategy.needs_reference and references is None:
            raise VersatuneError(
                f"compare.strategies.{label} needs reference losses, and references.mode is "
                f"{reference_losses.get('mode', 'none')}."
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
    runs = [
        {
            "strategy": label,
            "seed": seed,
            "train": _train_params(label, seed, params, train).model_dump(mode="json"),
        }
        for seed in params.seeds
        for label in params.strategies
    ]
    return {"runs": runs, "start": start}


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
    """Every run; finished ones are kept, interrupted ones continue."""
    from versatune.comparing.runs import ComparisonSetup, Plan, described, pieces

    setup = ComparisonSetup(
        store=tokenized,
        base=CheckpointRef.from_entry(base_model),
        tasks=tuple(domain_tasks(domains)),
        evaluate=evaluate,
        evaluations=evaluations,
        keep_models=params.keep_models,
    )
    planned = Plan.model_validate(plan)
    listening = partial(tracking.child_runs, described(planned))
    return Pieces(pieces(planned, setup), parallel, listening)


def collect_runs(
    plan: dict[str, Any], comparison_runs: dict[str, FolderRef]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The runs' numbers, their mixtures' history and the score of every row and question."""
    from versatune.comparing.runs import Plan, read_runs

    return read_runs(Plan.model_validate(plan), comparison_runs)


def compare(
    comparison: pd.DataFrame,
    comparison_items: pd.DataFrame,
    reference_losses: dict[str, Any],
    params: CompareParams,
    train: TrainParams,
) -> pd.DataFrame:
    """The verdicts on the objective, over the comparisons of ``compare.bases`` too."""
    declared = DeclaredObjective(
        train.changed(params.train).objective, reference_parts(reference_losses)
    )
    comparison, comparison_items = with_other_bases(comparison, comparison_items, params.bases)
    summary = against.summarise(
        comparison, params.baseline, params.target, declared, comparison_items
    )
    for line in spoken(summary, declared.name):
        logger.info(line)
    tracking.log_metrics(against.headline(summary))
    return summary
