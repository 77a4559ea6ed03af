"""Reference losses r_j: what a model reaches on one domain alone, held out and stopped early.

The paper's public code took training losses after memorising, which are near 0 and make every
learnable potential about 1. Here each domain has a run of its own with a held-out measurement
every few steps; the reference is the minimum, the base model's own loss included.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any

from versatune.artifacts import FolderRef
from versatune.modeling.checkpoints import CheckpointRef
from versatune.training.api import history, piece_of
from versatune.training.config import ReferenceParams, TrainParams
from versatune.training.job import Training
from versatune.work import Piece, not_needed
from versatune.work.folder import SKIPPED

logger = logging.getLogger(__name__)


def reference_rows(store: FolderRef, base: CheckpointRef, params: ReferenceParams) -> Piece:
    """``store`` in tokens of the proxy; not needed when both tokenizers have one vocabulary."""
    from versatune.modeling.checkpoints import load_tokenizer
    from versatune.training.retokenize import retokenize

    if params.mode == "none" or params.proxy is None:
        return not_needed()
    proxy = _model(base, params)
    own, other = load_tokenizer(base), load_tokenizer(proxy)
    if own.get_vocab() == other.get_vocab():
        return not_needed()
    logger.info("%s has another tokenizer: losses are compared in bits per byte.", proxy.name)
    return retokenize(store, base, proxy)


def reference_runs(
    store: FolderRef,
    rows: FolderRef,
    base: CheckpointRef,
    params: ReferenceParams,
    train: TrainParams,
) -> dict[str, Piece]:
    """A training on each domain alone, by domain; none with ``mode: none``.

    ``rows``: what :func:`reference_rows` made. Each is kept by the fingerprint of what made it, so
    a killed run loses one domain at most.
    """
    if params.mode == "none":
        return {}
    data, model = _rows(store, rows), _model(base, params)
    runs = params.of_run(train, data.facts["max_length"])
    return {
        name: piece_of(
            Training(
                store=data,
                base=model,
                params=runs,
                key="references.train",
                domain=name,
                patience=params.patience,
                save_model=False,
            )
        )
        for name in data.facts["domains"]
    }


def reference_losses(
    store: FolderRef,
    rows: FolderRef,
    base: CheckpointRef,
    params: ReferenceParams,
    train: TrainParams,
    runs: Mapping[str, FolderRef],
) -> dict[str, Any]:
    """The ``reference_losses`` of the contract: ``domains``, each with the minimum of its run.

    ``rows_per_domain`` says how many rows they are of (None: all).
    ``at_limit``: the run ended at ``max_steps`` and not after ``patience`` measurements without a
    new minimum.
    ``nats_per_token`` is in tokens of ``base``'s tokenizer; when a proxy has another one, its
    bits per byte are turned into them by the bytes and tokens of the rows measured.
    With ``mode: none`` all values are None.
    """
    if params.mode == "none":
        nothing = {"nats_per_token": None, "bits_per_byte": None, "step": None}
        names = store.facts["domains"]
        return {"mode": "none", "split": "steering", "domains": dict.fromkeys(names, nothing)}
    model, n_rows = _model(base, params), params.of_run(train).heldout_rows_per_domain
    domains = {}
    for name, run in runs.items():
        found = _minimum(run)
        if _rows(store, rows) is not store:
            found |= _in_tokens_of(store, name, n_rows, found["bits_per_byte"])
        domains[name] = {**found, "model": model.name, "split": "steering"}
        logger.info(
            "reference of %s: %.4f nats per token at step %d",
            name,
            found["nats_per_token"],
            found["step"],
        )
    return {
        "mode": "measure",
        "model": model.name,
        "split": "steering",
        "rows_per_domain": n_rows,
        "domains": domains,
    }


def _model(base: CheckpointRef, params: ReferenceParams) -> CheckpointRef:
    return base if params.proxy is None else CheckpointRef.of_folder(params.proxy)


def _rows(store: FolderRef, rows: FolderRef) -> FolderRef:
    return store if rows.facts.get(SKIPPED) else rows


def _minimum(run: FolderRef) -> dict[str, Any]:
    """The minimum of one domain's run."""
    curve = history(run.path)
    best = curve.sort_values("validation_loss", kind="stable").iloc[0]
    return {
        "nats_per_token": float(best["validation_loss"]),
        "bits_per_byte": float(best["validation_bits_per_byte"]),
        "stderr": float(best["validation_stderr"]),
        "step": int(best["step"]),
        "steps_run": int(curve["step"].max()),
        "at_limit": run.facts["ended"] is None,
    }


def _in_tokens_of(
    store: FolderRef, name: str, rows_per_domain: int | None, bits_per_byte: float
) -> dict[str, Any]:
    """Bits per byte as nats per token of the rows the base model is measured on."""
    from versatune.data.store import TokenizedSplit
    from versatune.modeling.heldout import chosen_rows

    split = TokenizedSplit.load(store, "steering")
    at = split.domains.index(name)
    rows = chosen_rows(split, rows_per_domain)[at]
    bytes_a_token = split.n_bytes[rows].sum() / split.supervised[rows].sum()
    return {
        "nats_per_token": float(bits_per_byte * math.log(2) * bytes_a_token),
        "proxy_bits_per_byte": bits_per_byte,
    }
