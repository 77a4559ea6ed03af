"""Reference losses r_j: what a model reaches on one domain alone, held out and stopped early.

The paper's public code took training losses after memorising, which are near 0 and make every
learnable potential about 1. Here each domain has a run of its own with a held-out measurement
every few steps; the reference is what it reaches, the base model's own loss included. The curve is
kept, and several times on the way the other domains are measured too (forward passes alone): what
a share of one domain does to the others (:mod:`versatune.mixing.curves`).
"""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from versatune.artifacts import FolderRef, read_json
from versatune.mixing.curves import Point, measured_at, reached, still_falling
from versatune.mixing.shares import Array
from versatune.modeling.checkpoints import CheckpointRef
from versatune.training.api import run_job
from versatune.training.config import ReferenceParams, TrainParams
from versatune.training.job import HISTORY, Job

logger = logging.getLogger(__name__)


def measure_references(
    store: FolderRef, base: CheckpointRef, params: ReferenceParams
) -> dict[str, Any]:
    """The ``reference_losses`` of the contract: ``domains``, each with its minimum.

    ``rows_per_domain`` says how many rows they are of (None: all).
    ``nats_per_token`` is in tokens of ``base``'s tokenizer; when a proxy has another one, its
    bits per byte are turned into them by the bytes and tokens of the rows measured. Each domain
    is kept in a folder of its own below ``params.folder`` by the fingerprint of what made it.
    With ``mode: none`` all values are None and nothing is run.
    """
    names: list[str] = store.facts["domains"]
    if params.mode == "none":
        nothing = {"nats_per_token": None, "bits_per_byte": None, "step": None}
        return {"mode": "none", "split": "validation", "domains": dict.fromkeys(names, nothing)}
    model, data = base, store
    if params.proxy is not None:
        model = CheckpointRef.of_folder(params.proxy)
        data = store_for(store, base, model, params.folder / "tokenized")
    domains, scale = {}, {}
    for name in names:
        found = _measure(data, model, params, name)
        if data is not store:
            own = found["nats_per_token"]
            found |= _in_tokens_of(store, name, params, found["bits_per_byte"])
            scale[name] = found["nats_per_token"] / own
        domains[name] = {**found, "model": model.name, "split": "validation"}
        logger.info(
            "reference of %s: %.4f nats per token at step %d",
            name,
            found["nats_per_token"],
            found["step"],
        )
    for entry in domains.values():
        if scale:
            entry["curve"] = _in_tokens(entry, scale)
    return {
        "mode": "measure",
        "model": model.name,
        "split": "validation",
        "rows_per_domain": params.heldout_rows,
        "domains": domains,
    }


def store_for(
    store: FolderRef, base: CheckpointRef, proxy: CheckpointRef, folder: Path
) -> FolderRef:
    """``store`` in tokens of the proxy: itself when both tokenizers have the same vocabulary."""
    from versatune.modeling.checkpoints import load_tokenizer
    from versatune.training.retokenize import retokenize

    own, other = load_tokenizer(base), load_tokenizer(proxy)
    if own.get_vocab() == other.get_vocab():
        return store
    logger.info("%s has another tokenizer: losses are compared in bits per byte.", proxy.name)
    return retokenize(store, base, proxy, folder)


def _measure(
    store: FolderRef, model: CheckpointRef, params: ReferenceParams, name: str
) -> dict[str, Any]:
    """What one domain's run reached, and its curve."""
    from versatune.training.budget import learning_by_round

    steps = min(params.eval_steps, params.max_steps)
    train = TrainParams(
        folder=params.folder / name,
        resume="restart",
        seed=params.seed,
        rounds=params.max_steps // steps,
        steps_per_round=steps,
        max_length=max(params.max_length, store.facts["max_length"]),
        packing=params.packing,
        learning_rate=params.learning_rate,
        weight_decay=params.weight_decay,
        adam_beta1=params.adam_beta1,
        adam_beta2=params.adam_beta2,
        max_grad_norm=params.max_grad_norm,
        lr_scheduler_type=params.lr_scheduler_type,
        warmup_ratio=params.warmup_ratio,
        per_device_train_batch_size=params.per_device_train_batch_size,
        gradient_accumulation_steps=params.gradient_accumulation_steps,
        bf16=params.bf16,
        dtype=params.dtype,
        gradient_checkpointing=params.gradient_checkpointing,
        lora=params.lora,
        attn_implementation=params.attn_implementation,
        loss_guard=params.loss_guard,
        heldout_rows_per_domain=params.heldout_rows,
    )
    job = Job(
        store=store,
        base=model,
        params=train,
        folder=train.folder,
        all_at=measured_at(train.rounds, _affordable(store, name, params, train)),
        key="references",
        only=name,
        patience=params.patience,
        keeps=False,
    )
    result = run_job(job)
    rows = result.history.sort_values("round").to_dict("records")
    learning = np.concatenate([[0.0], np.cumsum(learning_by_round(train))])
    others = {o["round"]: o for o in read_json(result.model_ref.path / HISTORY)["others"]}
    curve = [_point(row, learning, others.get(row["round"]), name) for row in rows]
    losses = np.array([row["validation_loss"] for row in rows])
    value, at = reached(losses)
    if len(rows) == train.rounds + 1 and still_falling(losses, learning):
        logger.warning(
            "The reference run of %s ended at references.max_steps (%d) while its loss was still "
            "falling: more steps would give a lower reference.",
            name,
            params.max_steps,
        )
    bits = float(rows[at]["validation_bits_per_byte"])
    return {
        "nats_per_token": value,
        "bits_per_byte": bits * value / float(losses[at]),
        "stderr": float(rows[at]["validation_stderr"]),
        "step": int(rows[at]["step"]),
        "steps_run": int(rows[-1]["step"]),
        "curve": [point.model_dump() for point in curve],
    }


def _point(
    row: Mapping[Any, Any], learning: Array, others: dict[str, Any] | None, name: str
) -> Point:
    """One round of a reference run; ``others``: what was measured of the other domains."""
    stderr = row["since_base_stderr"]
    known = stderr is not None and not math.isnan(stderr)
    also: dict[str, dict[str, float]] = others or {"losses": {}, "stderrs": {}}
    return Point(
        step=int(row["step"]),
        learning=float(learning[int(row["round"])]),
        losses={name: float(row["validation_loss"]), **also["losses"]},
        stderrs={**({name: float(stderr)} if known else {}), **also["stderrs"]},
    )


def _affordable(store: FolderRef, name: str, params: ReferenceParams, train: TrainParams) -> int:
    """How often all other domains can be measured within ``params.transfer`` of the run's cost.

    A token costs a third in a forward pass of what it costs in a training step.
    """
    from versatune.data.store import TokenizedSplit
    from versatune.modeling.heldout import chosen_rows

    if params.transfer == 0:
        return 0
    split = TokenizedSplit.load(store, "validation")
    rows = chosen_rows(split, params.heldout_rows)
    others = [r for other, r in zip(split.domains, rows, strict=True) if other != name]
    if not others:
        return 0
    tokens = int(split.lengths[np.concatenate(others)].sum())
    step = train.per_device_train_batch_size * train.gradient_accumulation_steps * train.max_length
    trained = train.rounds * train.steps_per_round * step
    return max(1, int(params.transfer * trained / (tokens / 3)))


def _in_tokens(entry: dict[str, Any], scale: dict[str, float]) -> list[dict[str, Any]]:
    """The curve of a proxy with another tokenizer, each domain's losses times ``scale``."""
    return [
        {**point, "losses": {n: loss * scale[n] for n, loss in point["losses"].items()}}
        for point in entry["curve"]
    ]


def _in_tokens_of(
    store: FolderRef, name: str, params: ReferenceParams, bits_per_byte: float
) -> dict[str, Any]:
    """Bits per byte as nats per token of the rows the base model is measured on."""
    from versatune.data.store import TokenizedSplit
    from versatune.modeling.heldout import chosen_rows

    split = TokenizedSplit.load(store, "validation")
    at = split.domains.index(name)
    rows = chosen_rows(split, params.heldout_rows)[at]
    bytes_a_token = split.n_bytes[rows].sum() / split.supervised[rows].sum()
    return {
        "nats_per_token": float(bits_per_byte * math.log(2) * bytes_a_token),
        "proxy_bits_per_byte": bits_per_byte,
    }
