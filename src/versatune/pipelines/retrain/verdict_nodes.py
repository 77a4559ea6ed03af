"""Nodes of the retrain pipeline that compare, decide and register."""

import logging
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from versatune import tracking
from versatune.artifacts import FolderRef
from versatune.data.config import Domains
from versatune.evaluation.config import EvaluateParams
from versatune.modeling.checkpoints import CheckpointRef
from versatune.pipelines.evaluate.nodes import evaluate as evaluate_one
from versatune.retraining import challenger, champions, promotion
from versatune.retraining.config import RetrainParams
from versatune.retraining.run_store import CHALLENGER, RunStore
from versatune.training.config import TrainParams

logger = logging.getLogger(__name__)


def evaluate_models(
    retrain_models: dict[str, Any],
    retrain_challenger: dict[str, Any],
    retrain_tokenized: FolderRef,
    domains: Domains,
    evaluate: EvaluateParams,
    params: RetrainParams,
    retrain_evaluations: Path,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Champion and challenger on the same held-out rows and evaluation items."""
    settings = challenger.evaluation_params(evaluate, params)
    found = [
        evaluate_one(
            CheckpointRef.model_validate(model),
            name,
            retrain_tokenized,
            domains,
            settings,
            retrain_evaluations,
            answers=False,
        )
        for name, model in (
            (challenger.CHAMPION, retrain_models["opponent"]),
            (CHALLENGER, retrain_challenger),
        )
    ]
    rows, items = (pd.concat([f[i] for f in found], ignore_index=True) for i in (0, 1))
    return rows, items


def decide_promotion(
    retrain_evaluation_items: pd.DataFrame, train: TrainParams, params: RetrainParams
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The change of each domain, and the promotion rule's decision with its reasons."""
    changes = promotion.measured(challenger.pair(retrain_evaluation_items))
    tracking.log_metrics({f"change/{c.metric}/{c.domain}": c.value for c in changes})
    verdict = promotion.judge(changes, params.promotion, train.objective)
    return pd.DataFrame([change.model_dump() for change in changes]), verdict.model_dump()


def register_challenger(
    retrain_news: dict[str, Any],
    retrain_models: dict[str, Any],
    retrain_tokenized: FolderRef,
    retrain_challenger: dict[str, Any],
    retrain_changes: pd.DataFrame,
    retrain_verdict: dict[str, Any],
    params: RetrainParams,
    retrain_runs: Path,
    retrain_evaluations: Path,
) -> dict[str, Any]:
    """Register the challenger, move `champion` if it won, and delete old challengers' files."""
    runs, number = RunStore(retrain_runs), retrain_news["number"]
    reasons, decision = retrain_verdict["reasons"], "nothing new"
    if retrain_news["new"]:
        numbers = {"changes": retrain_changes.to_dict("records"), "verdict": retrain_verdict}
        for name, value in numbers.items():
            runs.keep(number, name, value)
        waiting = champions.registration(
            retrain_news, retrain_models, retrain_tokenized, retrain_challenger, retrain_verdict
        )
        decision = champions.conclude(runs, waiting, params)
        logger.info("Retraining %d: %s: %s.", number, decision, "; ".join(reasons))
        champions.tell({"reasons": "; ".join(reasons)})
        shutil.rmtree(retrain_evaluations, ignore_errors=True)  # the next is of other rows
    champions.tell({"decision": decision})
    if "data_fingerprint" in retrain_tokenized.metadata:
        tracking.set_tags({"data_fingerprint": retrain_tokenized.metadata["data_fingerprint"]})
    return {**runs.kept(number, "outcome"), "reasons": reasons}
