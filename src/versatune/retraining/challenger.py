"""Inputs, training parameters and comparison of a retraining: pure functions of parameters and
tables."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from versatune.artifacts import FolderRef, file_digest, read_json
from versatune.data.config import CleanParams, TokenizeParams
from versatune.errors import VersatuneError
from versatune.evaluation.config import EvaluateParams
from versatune.evaluation.results import HELD_OUT, LOSS, task_accuracies
from versatune.intervals import Array
from versatune.mixing.config import ConstantParams, Unit
from versatune.mixing.doubt import doubts, told, trusted_strategy
from versatune.modeling.checkpoints import CheckpointRef
from versatune.retraining.config import Metric, RetrainParams
from versatune.retraining.run_store import CHALLENGER
from versatune.training.config import TrainParams

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

CHAMPION = "champion"
"""The name in tables of the model that a challenger is measured against."""


def what_matters(
    params: RetrainParams,
    clean: CleanParams,
    tokenize: TokenizeParams,
    training: TrainParams,
    evaluate: EvaluateParams,
    base: CheckpointRef,
    knowledge: Path,
) -> dict[str, Any]:
    """The parameters whose change is a reason to retrain, by block, as JSON.

    Left out: keys of speed and of reports, and the keys that ``params`` replaces. ``knowledge``:
    the probe's distribution, if it is there.
    """
    own = {"keep_last", "example", "model_name"}
    matters = {
        "retrain": params.model_dump(mode="json", exclude=own),
        "ingest": clean.model_dump(mode="json", exclude={"max_examples"}),
        "tokenize": tokenize.model_dump(mode="json", exclude={"num_workers"}),
        "train": training_params(training, params).fingerprint_fields(),
        "evaluate": evaluation_params(evaluate, params).fingerprint_fields(),
        "base_model": base.fingerprint,
    }
    if params.initial == "detected" and knowledge.is_file():
        matters["knowledge"] = file_digest(knowledge)
    return matters


def training_params(training: TrainParams, params: RetrainParams) -> TrainParams:
    """The parameters of ``train`` as a retraining uses them.

    Raises VersatuneError when they would save only an adapter.
    """
    if training.lora is not None and not training.lora.merge:
        raise VersatuneError(
            "train.lora.merge is false, but retraining needs whole models: the next challenger "
            "is trained from the champion, which serves without its base. Set train.lora.merge to "
            "true."
        )
    return training.model_copy(
        update={
            "resume": "restart",
            "strategy": params.strategy,
            "rounds": params.rounds or training.rounds,
            "learning_rate": params.learning_rate or training.learning_rate,
        }
    )


def evaluation_params(evaluate: EvaluateParams, params: RetrainParams) -> EvaluateParams:
    """The parameters of ``evaluate`` as a retraining uses them."""
    return evaluate.model_copy(update={"rows_per_domain": params.heldout_rows_per_domain})


def first_shares(
    store: FolderRef, params: RetrainParams, knowledge: Path, unit: Unit = "supervised_tokens"
) -> dict[str, float]:
    """The shares of the first round, by domain; their sum is 1. ``unit``: that of training.

    Raises VersatuneError when detected shares are asked for and are not there, or are those of
    other domains.
    """
    domains = store.metadata["domains"]
    initial = _initial(params, knowledge)
    if initial == "uniform":
        return {name: 1 / len(domains) for name in domains}
    if initial == "proportional":
        amounts = {name: store.metadata["train"][name][unit] for name in domains}
        total = sum(amounts.values())
        return {name: number / total for name, number in amounts.items()}
    if not knowledge.is_file():
        raise VersatuneError(
            f"retrain.initial is 'detected', but there is no {knowledge}: run the probe "
            "pipeline once, or set retrain.initial to proportional."
        )
    known = read_json(knowledge)["domains"]
    if set(known) != set(domains):
        raise VersatuneError(
            f"{knowledge} is about {', '.join(known)}, but the data about "
            f"{', '.join(domains)}: run the probe pipeline again, or set retrain.initial to "
            "proportional."
        )
    return {name: float(known[name]["share"]) for name in domains}


def folder_of(number: int) -> str:
    """The challenger's folder, below the folder of all retrainings."""
    return f"{number:04d}/{CHALLENGER}"


def _initial(params: RetrainParams, knowledge: Path) -> str:
    """``params.initial``, or what takes its place when the probe failed its own checks."""
    if params.initial != "detected" or not knowledge.is_file():
        return params.initial
    failed, asked = doubts(read_json(knowledge)), ConstantParams()
    made = trusted_strategy(asked, failed, params.on_doubt, "retrain.on_doubt")
    if made is asked:
        return params.initial
    logger.warning(
        "The probe's shares do not start the challenger (retrain.on_doubt: %s): %s",
        *(params.on_doubt, told(failed)),
    )
    return made.name


def pair(items: "pd.DataFrame") -> dict[tuple[str, Metric], tuple[Array, ...]]:
    """Scores of both models on the same rows and items, and their weights, by domain and metric.

    ``items``: the ``evaluation_items`` of both. Every evaluation file of a domain counts by
    its number of items. Raises ValueError when the models got different items.
    """
    champion, challenger = (items[items["model"] == name] for name in (CHAMPION, CHALLENGER))
    keys = ["domain", "task", "metric", "item"]
    both = champion.merge(challenger, on=keys, suffixes=("_before", "_after"), validate="1:1")
    if not len(both) == len(champion) == len(challenger):
        raise ValueError("the two models were measured on different items")
    losses = both[(both["task"] == HELD_OUT) & (both["metric"] == LOSS)]
    answers = task_accuracies(both, by=("item",))
    parts: dict[Metric, pd.DataFrame] = {"heldout_loss": losses, "accuracy": answers}
    columns = ["score_before", "score_after", "weight_before"]
    return {
        (str(domain), metric): tuple(of_domain[columns].to_numpy(np.float64).T.copy())
        for metric, part in parts.items()
        for domain, of_domain in part.groupby("domain", sort=False)
    }
