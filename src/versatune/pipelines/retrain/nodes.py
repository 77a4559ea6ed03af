"""Nodes of the retrain pipeline. With nothing new each hands on what the last night made."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from versatune import tracking
from versatune.artifacts import FolderRef, to_jsonable
from versatune.modeling.checkpoints import CheckpointRef
from versatune.pipelines.evaluate.nodes import local_tasks
from versatune.pipelines.retrain import champions
from versatune.pipelines.retrain.params import (
    CleanParams,
    Domains,
    EvaluateParams,
    RetrainParams,
    TokenizeParams,
    TrainParams,
)
from versatune.pipelines.train.nodes import log_round
from versatune.retraining import challenger, promotion
from versatune.retraining.nights import Diary

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
    remembered = retrain_runs / "digests.json"
    saw = challenger.seen(
        domains, params, clean, tokenize, train, evaluate, base, retrain_knowledge, remembered
    )
    night, new = Diary(retrain_runs).open(to_jsonable(saw))
    reasons = night.new if new else []
    if new:
        logger.info("Retraining %d: %s.", night.number, "; ".join(reasons))
        tracking.set_tags({"strategy": params.strategy.name, "base_model": base.name})
    else:
        logger.info("Nothing new since retraining %d (%s).", night.number, night.finished)
    champions.tell({"night": str(night.number), "new": "; ".join(reasons) or "nothing"})
    return {"night": night.number, "new": new, "reasons": reasons}


def choose_models(
    retrain_news: dict[str, Any],
    base_model: dict[str, Any],
    params: RetrainParams,
    retrain_runs: Path,
) -> dict[str, Any]:
    """Hand in what waits for the registry; pin the night's champion and where it starts from."""
    diary = Diary(retrain_runs)
    champions.hand_in(diary, params)

    base = CheckpointRef.model_validate(base_model)
    choose = partial(champions.choose, diary, base, params)
    return dict(diary.pinned(retrain_news["night"], "models", choose))


def train_challenger(
    retrain_news: dict[str, Any],
    retrain_models: dict[str, Any],
    retrain_data: dict[str, Any],
    train: TrainParams,
    params: RetrainParams,
    retrain_runs: Path,
    retrain_knowledge: Path,
) -> dict[str, Any]:
    """Train a challenger from the champion or the base model."""
    diary, night = Diary(retrain_runs), retrain_news["night"]

    def make() -> dict[str, Any]:
        return challenger.train_challenger(
            FolderRef.model_validate(retrain_data),
            CheckpointRef.model_validate(retrain_models["start"]),
            train,
            params,
            retrain_knowledge,
            diary.folder_of(night),
            log_round,
        ).model_dump(mode="json")

    return dict(diary.result(night, "challenger", make))


def measure(
    retrain_news: dict[str, Any],
    retrain_models: dict[str, Any],
    retrain_data: dict[str, Any],
    retrain_challenger: dict[str, Any],
    domains: Domains,
    evaluate: EvaluateParams,
    params: RetrainParams,
    retrain_runs: Path,
) -> pd.DataFrame:
    """Champion and challenger on the same held-out rows and evaluation items."""
    diary, night = Diary(retrain_runs), retrain_news["night"]

    def make() -> list[Any]:
        changes = challenger.compare(
            CheckpointRef.model_validate(retrain_models["opponent"]),
            CheckpointRef.model_validate(retrain_challenger),
            FolderRef.model_validate(retrain_data),
            local_tasks(domains),
            evaluate,
            params,
            diary.folder_of(night),
        )
        return [change.model_dump() for change in changes]

    return pd.DataFrame(diary.result(night, "changes", make))


def decide(
    retrain_news: dict[str, Any],
    retrain_changes: pd.DataFrame,
    train: TrainParams,
    params: RetrainParams,
    retrain_runs: Path,
) -> dict[str, Any]:
    """The promotion rule: does the challenger take over, and why."""

    def make() -> dict[str, Any]:
        records = retrain_changes.to_dict("records")
        changes = [promotion.Change.model_validate(record) for record in records]
        tracking.log_metrics({f"change/{c.metric}/{c.domain}": c.value for c in changes})
        return promotion.judge(changes, params.promotion, train.objective).model_dump()

    return dict(Diary(retrain_runs).result(retrain_news["night"], "verdict", make))


def register_challenger(
    retrain_news: dict[str, Any],
    retrain_models: dict[str, Any],
    retrain_data: dict[str, Any],
    retrain_challenger: dict[str, Any],
    retrain_verdict: dict[str, Any],
    params: RetrainParams,
    retrain_runs: Path,
) -> dict[str, Any]:
    """Register the challenger, move `champion` if it won, and delete old challengers' files."""
    diary, night = Diary(retrain_runs), retrain_news["night"]
    reasons, decision = retrain_verdict["reasons"], "nothing new"
    if retrain_news["new"]:
        waiting = champions.registration(
            retrain_news, retrain_models, retrain_data, retrain_challenger, retrain_verdict
        )
        decision = champions.conclude(diary, waiting, params)
        logger.info("Retraining %d: %s. %s.", night, decision, "; ".join(reasons))
        champions.tell({"reasons": "; ".join(reasons)})
    champions.tell({"decision": decision})
    return {**diary.kept(night, "outcome"), "reasons": reasons}
