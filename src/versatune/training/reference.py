"""Reference losses r_j: what a model reaches on one domain alone, held out and stopped early.

The paper's public code took training losses after memorising, which are near 0 and make every
learnable potential about 1. Here each domain has a run of its own with a held-out measurement
every few steps; the reference is the minimum, the base model's own loss included.
"""

import logging
import math
from pathlib import Path
from typing import Any

from versatune.artifacts import FolderRef
from versatune.modeling.checkpoints import CheckpointRef
from versatune.training.api import run_job
from versatune.training.config import ReferenceParams, TrainParams
from versatune.training.job import Job

logger = logging.getLogger(__name__)


def measure_references(
    store: FolderRef, base: CheckpointRef, params: ReferenceParams
) -> dict[str, Any]:
    """The ``reference_losses`` of the contract: ``domains``, each with its minimum.

    ``rows_per_domain`` says how many rows they are of (None: all).
    ``at_limit``: the run ended at ``max_steps`` and not after ``patience`` measurements without a
    new minimum. ``nats_per_token`` is in tokens of ``base``'s tokenizer; when a proxy has another
    one, its bits per byte are turned into them by the bytes and tokens of the rows measured. Each
    domain is kept in a folder of its own below ``params.folder`` by the fingerprint of what made
    it.
    With ``mode: none`` all values are None and nothing is run.
    """
    names: list[str] = store.facts["domains"]
    if params.mode == "none":
        nothing = {"nats_per_token": None, "bits_per_byte": None, "step": None}
        return {"mode": "none", "split": "steering", "domains": dict.fromkeys(names, nothing)}
    model, data = base, store
    if params.proxy is not None:
        model = CheckpointRef.of_folder(params.proxy)
        data = store_for(store, base, model, params.folder / "tokenized")
    domains = {}
    for name in names:
        found = _measure(data, model, params, name)
        if data is not store:
            found |= _in_tokens_of(store, name, params, found["bits_per_byte"])
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
    """The minimum of one domain's run."""
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
        lr_scheduler_type="constant_with_warmup",
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
        key="references",
        only=name,
        patience=params.patience,
        keeps=False,
    )
    done = run_job(job)
    history = done.history
    best = history.sort_values("validation_loss", kind="stable").iloc[0]
    return {
        "nats_per_token": float(best["validation_loss"]),
        "bits_per_byte": float(best["validation_bits_per_byte"]),
        "stderr": float(best["validation_stderr"]),
        "step": int(best["step"]),
        "steps_run": int(history["step"].max()),
        "at_limit": done.model_ref.facts["ended"] is None,
    }


def _in_tokens_of(
    store: FolderRef, name: str, params: ReferenceParams, bits_per_byte: float
) -> dict[str, Any]:
    """Bits per byte as nats per token of the rows the base model is measured on."""
    from versatune.data.store import TokenizedSplit
    from versatune.modeling.heldout import chosen_rows

    split = TokenizedSplit.load(store, "steering")
    at = split.domains.index(name)
    rows = chosen_rows(split, params.heldout_rows)[at]
    bytes_a_token = split.n_bytes[rows].sum() / split.supervised[rows].sum()
    return {
        "nats_per_token": float(bits_per_byte * math.log(2) * bytes_a_token),
        "proxy_bits_per_byte": bits_per_byte,
    }
