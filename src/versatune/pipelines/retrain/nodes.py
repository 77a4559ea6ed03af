"""Nodes of the retrain pipeline: what is new, and a challenger trained on it."""

import logging
from pathlib import Path
from typing import Any

from versatune import tracking
from versatune.artifacts import FolderRef, to_jsonable
from versatune.data.config import CleanParams, Domains, TokenizeParams
from versatune.evaluation.config import EvaluateParams
from versatune.modeling.checkpoints import CheckpointRef
from versatune.retraining import challenger, champions
from versatune.retraining.config import RetrainParams
from versatune.retraining.news import data_state
from versatune.retraining.run_store import RunStore
from versatune.training.api import piece_of
from versatune.training.config import TrainParams
from versatune.training.job import Training
from versatune.work import UNCHANGED, Piece, Unchanged

logger = logging.getLogger(__name__)


def look_for_news(
    sample: dict[str, Any],
    base_model: dict[str, Any],
    domains: Domains,
    clean: CleanParams,
    tokenize: TokenizeParams,
    train: TrainParams,
    evaluate: EvaluateParams,
    params: RetrainParams,
    retrain_runs: Path,
    retrain_knowledge: Path,
) -> dict[str, Any]:
    """Compare data and parameters with what the last finished retraining saw."""
    del sample  # orders this after the files the embedded sample's domains name
    base = CheckpointRef.model_validate(base_model)
    matters = challenger.what_matters(
        params, clean, tokenize, train, evaluate, base, retrain_knowledge
    )
    saw = {"data": data_state(domains, retrain_runs / "digests.json"), "parameters": matters}
    run, new = RunStore(retrain_runs).open(to_jsonable(saw))
    reasons = run.new if new else []
    if new:
        logger.info("Retraining %d: %s.", run.number, "; ".join(reasons))
        tracking.set_tags({"strategy": params.strategy.name, "base_model": base.name})
    else:
        logger.info("Nothing new since retraining %d (%s).", run.number, run.finished)
    champions.tell({"number": str(run.number), "new": "; ".join(reasons) or "nothing"})
    return {"number": run.number, "new": new, "reasons": reasons}


def choose_models(
    retrain_news: dict[str, Any],
    base_model: dict[str, Any],
    params: RetrainParams,
    retrain_runs: Path,
) -> dict[str, Any] | Unchanged:
    """Register what waits for MLflow; choose the champion and the model that training starts
    from."""
    runs = RunStore(retrain_runs)
    champions.hand_in(runs, params)
    if not retrain_news["new"]:
        return UNCHANGED
    base = CheckpointRef.model_validate(base_model)
    return runs.models(lambda: champions.choose(runs, base, params))


def compute_mixture(
    retrain_tokenized: FolderRef,
    params: RetrainParams,
    train: TrainParams,
    retrain_knowledge: Path,
) -> dict[str, Any]:
    """The shares of the first round."""
    shares = challenger.first_shares(retrain_tokenized, params, retrain_knowledge, train.unit)
    return {"strategy": params.initial, "unit": train.unit, "weights": shares}


def train_challenger(
    retrain_news: dict[str, Any],
    retrain_models: dict[str, Any],
    retrain_tokenized: FolderRef,
    retrain_mixture: dict[str, Any],
    train: TrainParams,
    params: RetrainParams,
) -> dict[str, Piece]:
    """Train a challenger from the champion or the base model."""
    training = Training(
        store=retrain_tokenized,
        base=CheckpointRef.model_validate(retrain_models["start"]),
        params=challenger.training_params(train, params),
        initial_weights=retrain_mixture["weights"],
        detected_shares=retrain_mixture["weights"],
    )
    return {challenger.folder_of(retrain_news["number"]): piece_of(training, tracking.log_round)}


def name_challenger(
    retrain_news: dict[str, Any], retrain_challengers: dict[str, FolderRef]
) -> dict[str, Any]:
    """The challenger as a checkpoint, for the comparison and the registry."""
    number = retrain_news["number"]
    folder = retrain_challengers[challenger.folder_of(number)].path
    return CheckpointRef.of_folder(folder, f"challenger {number:04d}").model_dump(mode="json")
