"""Nodes of the mixture pipeline."""

import logging
from typing import Any

import numpy as np

from versatune import tracking
from versatune.artifacts import FolderRef
from versatune.data.config import Domains
from versatune.data.own_rows import with_own_rows
from versatune.errors import VersatuneError
from versatune.mixing.doubt import doubt_words, doubts, trusted_strategy
from versatune.mixing.origins import start_in_words
from versatune.mixing.shares import Array
from versatune.mixing.strategies import Context, initial_shares
from versatune.modeling.checkpoints import CheckpointRef, load_tokenizer
from versatune.pipelines.mixture.params import MixtureParams
from versatune.probing.own_texts import own_rows_of
from versatune.training.config import TrainParams
from versatune.training.diagnostics import reference_warnings
from versatune.training.reference_config import ReferenceParams
from versatune.work import ParallelParams, Piece, Pieces

logger = logging.getLogger(__name__)


def add_own_rows(
    tokenized: FolderRef, own_texts: FolderRef, base_model: dict[str, Any], domains: Domains
) -> Piece | FolderRef:
    """The rows to train on: the base model's own texts too, of domains with `self: true`."""
    if not any(config.rehearses for config in domains.active.values()):
        return tokenized
    trained_on = own_rows_of(own_texts, domains.active)
    base = CheckpointRef.from_entry(base_model)
    return with_own_rows(tokenized, own_texts, base.path, load_tokenizer, trained_on)


def reference_rows(
    tokenized: FolderRef, base_model: dict[str, Any], params: ReferenceParams
) -> Piece:
    """The rows in tokens of the proxy, when the references are measured with one."""
    from versatune.training import reference

    return reference.reference_rows(tokenized, CheckpointRef.from_entry(base_model), params)


def reference_runs(
    tokenized: FolderRef,
    reference_rows: FolderRef,
    base_model: dict[str, Any],
    params: ReferenceParams,
    train: TrainParams,
    parallel: ParallelParams,
) -> Pieces:
    """Train on each single domain, stopped early on held-out rows, and shortly on mixes."""
    from versatune.training import reference

    base = CheckpointRef.from_entry(base_model)
    runs = reference.reference_runs(tokenized, reference_rows, base, params, train)
    return Pieces(runs, parallel)


def reference_losses(
    tokenized: FolderRef,
    reference_rows: FolderRef,
    base_model: dict[str, Any],
    params: ReferenceParams,
    train: TrainParams,
    reference_runs: dict[str, FolderRef],
) -> dict[str, Any]:
    """What a model reaches on each single domain."""
    from versatune.training import reference

    base = CheckpointRef.model_validate(base_model)
    found = reference.reference_losses(
        tokenized, reference_rows, base, params, train, reference_runs
    )
    losses = {name: entry["nats_per_token"] for name, entry in found["domains"].items()}
    if None not in losses.values():
        each = ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
        logger.info("Reference losses (trained on only that domain): %s", each)
    for warning in reference_warnings(found):
        logger.warning("%s", warning)
    return found


def compute_mixture(
    knowledge_distribution: dict[str, Any], tokenized: FolderRef, params: MixtureParams
) -> dict[str, Any]:
    """Turn the detected distribution into the shares training starts with."""
    domains = tuple(tokenized.metadata["domains"])
    rows = tokenized.metadata["train"]
    context = Context(
        domains=domains,
        detected=_detected(knowledge_distribution, domains),
        counts=np.array([rows[name][params.unit] for name in domains], dtype=np.float64),
    )
    failed = doubts(knowledge_distribution)
    strategy = trusted_strategy(params.strategy, failed, params.on_doubt, "mixture.on_doubt")
    weights = initial_shares(strategy, context, params.floor)
    by_domain = dict(zip(domains, weights.tolist(), strict=True))
    made: dict[str, Any] = {"strategy": strategy.name, "unit": params.unit, "weights": by_domain}
    if failed:
        made["on_doubt"] = params.on_doubt
    if strategy is not params.strategy:
        made["asked"] = params.strategy.name
        logger.warning(
            "The probe's shares do not start the training, because its checks failed (%s); "
            "mixture.on_doubt: %s.",
            *(", ".join(failed).replace("_", " "), params.on_doubt),
        )
    words = start_in_words({}, strategy.name, **doubt_words(knowledge_distribution, made))
    logger.info(
        "Initial mixture: %s",
        ", ".join(f"{name} {share:.3f}" for name, share in by_domain.items()),
    )
    tracking.log_metrics({f"mixture/initial/{name}": w for name, w in by_domain.items()})
    tracking.set_tags({"mixture.start": words})
    return made


def _detected(distribution: dict[str, Any], domains: tuple[str, ...]) -> Array:
    found = distribution["domains"]
    if set(found) != set(domains):
        raise VersatuneError(
            f"knowledge_distribution is about {', '.join(found)}, but the tokenised rows about "
            f"{', '.join(domains)}: run the probe again with the same domains."
        )
    return np.array([found[name]["share"] for name in domains], dtype=np.float64)
