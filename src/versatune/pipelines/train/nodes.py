"""Nodes of the train pipeline."""

import logging
from typing import Any

import pandas as pd

from versatune import tracking
from versatune.artifacts import FolderRef
from versatune.errors import VersatuneError
from versatune.mixing.curves import law_facts
from versatune.modeling.checkpoints import CheckpointRef
from versatune.pipelines.train.params import TrackingParams
from versatune.training.api import train
from versatune.training.config import TrainParams

logger = logging.getLogger(__name__)


def train_model(
    tokenized: FolderRef,
    base_model: dict[str, Any],
    initial_mixture: dict[str, Any],
    reference_losses: dict[str, Any],
    knowledge_distribution: dict[str, Any],
    params: TrainParams,
) -> tuple[FolderRef, pd.DataFrame]:
    """Fine-tune the base model in rounds, the mixture following its held-out losses."""
    if initial_mixture["unit"] != params.unit:
        raise VersatuneError(
            f"mixture.unit is {initial_mixture['unit']!r} and train.unit {params.unit!r}: a share "
            "of one is no share of the other. Give both the same value."
        )
    warn_of_other_rows(reference_losses, tokenized, params)
    tracking.set_tags({"strategy": params.strategy.name, "base_model": base_model["name"]})
    result = train(
        tokenized,
        CheckpointRef.noted(base_model),
        params,
        initial_weights=initial_mixture["weights"],
        reference_losses=known_references(reference_losses),
        law=law_facts(reference_losses),
        detected_shares={
            name: entry["share"] for name, entry in knowledge_distribution["domains"].items()
        },
        folder=params.folder,
        on_round=_log,
    )
    if result.model_ref.facts["ended"]:
        tracking.set_tags({"train.ended": result.model_ref.facts["ended"]})
    return result.model_ref, result.history


def log_trained_model(trained_model: FolderRef, params: TrackingParams) -> None:
    """Put the trained model beside the run's numbers."""
    if params.log_model:
        made = CheckpointRef.made_here(trained_model.path, "trained")
        tracking.log_model(made.path, made.fingerprint, "What is a contract?")


def known_references(reference_losses: dict[str, Any]) -> dict[str, float] | None:
    """Nats per token by domain; None when references were switched off."""
    measured = {
        name: entry["nats_per_token"]
        for name, entry in reference_losses["domains"].items()
        if entry["nats_per_token"] is not None
    }
    return measured or None


def warn_of_other_rows(
    reference_losses: dict[str, Any], tokenized: FolderRef, params: TrainParams
) -> None:
    """Say so when references and training measure different rows of a domain.

    Raises VersatuneError when the references don't say how many rows they are of.
    """
    if reference_losses["mode"] == "none" or not params.strategy.needs_reference:
        return
    if "rows_per_domain" not in reference_losses:
        raise VersatuneError(
            "reference_losses has no rows_per_domain, so that nobody knows which rows the "
            "references are of: run the mixture pipeline again."
        )
    theirs, ours = reference_losses["rows_per_domain"], params.heldout_rows_per_domain
    there = [entry["rows"] for entry in tokenized.facts["validation"].values()]
    if any(min(theirs or n, n) != min(ours or n, n) for n in there):
        logger.warning(
            "The references are of %s held-out rows a domain, the losses of training of %s: how "
            "these rows differ counts as learnable potential. Give references.heldout_rows and "
            "heldout_rows_per_domain of train (or compare.train) one value.",
            *("all" if n is None else n for n in (theirs, ours)),
        )


def _log(event: dict[str, Any]) -> None:
    tracking.log_metrics(event["metrics"], step=event["step"])
