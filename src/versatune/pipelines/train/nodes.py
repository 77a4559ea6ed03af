"""Nodes of the train pipeline."""

import logging
from typing import Any

import pandas as pd

from versatune import tracking
from versatune.artifacts import FolderRef
from versatune.errors import VersatuneError
from versatune.mixing.doubt import detected_shares, doubt_words
from versatune.mixing.origins import shares_in_words
from versatune.mixing.traces import traces_of
from versatune.modeling.checkpoints import CheckpointRef
from versatune.pipelines.train.params import TrackingParams
from versatune.training.api import history, piece_of
from versatune.training.config import TrainParams
from versatune.training.diagnostics import training_warnings
from versatune.training.job import Training
from versatune.work import Piece

logger = logging.getLogger(__name__)


def train_model(
    tokenized: FolderRef,
    base_model: dict[str, Any],
    initial_mixture: dict[str, Any],
    reference_losses: dict[str, Any],
    knowledge_distribution: dict[str, Any],
    params: TrainParams,
    forecast: dict[str, Any] | None = None,
) -> Piece:
    """Fine-tune the base model in rounds, the mixture following its held-out losses."""
    del forecast  # orders this after the forecast, which a person may want to read first
    if initial_mixture["unit"] != params.unit:
        raise VersatuneError(
            f"the initial mixture is in {initial_mixture['unit']}, and train.unit is "
            f"{params.unit!r}: run the mixture pipeline again."
        )
    warn_of_other_rows(reference_losses, tokenized, params)
    shares = shares_in_words(
        params.strategy.told(),
        initial_mixture.get("strategy"),
        **doubt_words(knowledge_distribution, initial_mixture),
    )
    logger.info("%s%s", shares[0].upper(), shares[1:])
    tracking.set_tags(
        {
            "strategy": params.strategy.name,
            "base_model": base_model["name"],
            "train.shares": shares,
        }
    )
    training = Training(
        store=tokenized,
        base=CheckpointRef.from_entry(base_model),
        params=params,
        initial_weights=initial_mixture["weights"],
        reference_losses=known_references(reference_losses),
        traces=traces_of(reference_losses) if params.strategy.uses_law else None,
        detected_shares=detected_shares(knowledge_distribution, initial_mixture, params.strategy),
    )
    return piece_of(training, tracking.log_round, tracking.log_step)


def read_history(
    trained_model: FolderRef, reference_losses: dict[str, Any], params: TrainParams
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """How the mixture went, round by round, and what the report says of the training besides."""
    metadata = trained_model.metadata
    if metadata["ended"]:
        tracking.set_tags({"train.ended": metadata["ended"]})
    rounds = history(trained_model.path)
    for warning in training_warnings(rounds, reference_losses, params.strategy):
        logger.warning("%s", warning)
    names = ("steps", "rounds", "ended", "device", "peak_memory_bytes", "interpolation")
    summary = {name: metadata.get(name) for name in names}
    if between := summary["interpolation"]:
        tracking.log_metrics({"train/interpolation_part": between["part"]})
    return rounds, summary


def log_trained_model(
    trained_model: FolderRef,
    base_model: dict[str, Any],
    train: TrainParams,
    params: TrackingParams,
) -> None:
    """Log the trained model to the run, named after its base and its strategy."""
    if params.log_model:
        made = CheckpointRef.from_manifest(trained_model.path, "trained")
        name = f"{base_model['name']}-{train.strategy.name}"
        tracking.log_model(made.path, made.fingerprint, "What is a contract?", name)


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

    Raises VersatuneError when the references do not say how many rows they were measured on.
    """
    uses_them = params.strategy.needs_reference or params.objective.kind == "worst"
    if reference_losses["mode"] != "measure" or not uses_them:
        return
    if "rows_per_domain" not in reference_losses:
        raise VersatuneError(
            "reference_losses has no rows_per_domain, so the references "
            "cannot be matched to rows: run the mixture pipeline again."
        )
    theirs, ours = reference_losses["rows_per_domain"], params.heldout_rows_per_domain
    there = [entry["rows"] for entry in tokenized.metadata["steering"].values()]
    tokens = reference_losses.get("tokens_per_domain"), params.heldout_tokens_per_domain
    drawn = any(n > min(theirs or n, ours or n) for n in there)
    if (drawn and tokens[0] != tokens[1]) or any(
        min(theirs or n, n) != min(ours or n, n) for n in there
    ):
        logger.warning(
            "References are measured on %s held-out rows a domain, training on %s: the difference "
            "of these rows counts as learnable potential. Set heldout_rows_per_domain, and "
            "heldout_tokens_per_domain, to the same value in references.train and in train (or "
            "compare.train).",
            *("all" if n is None else n for n in (theirs, ours)),
        )
