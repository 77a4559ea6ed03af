"""The base model's held-out losses, where no reference run begins with them."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from versatune.artifacts import FolderRef
from versatune.data.row_choice import ROW_CHOICE
from versatune.data.store import TokenizedSplit
from versatune.modeling.checkpoints import CheckpointRef
from versatune.training.config import TrainParams
from versatune.training.reference_config import ReferenceParams
from versatune.work import Piece, not_needed


def base_losses(
    store: FolderRef, base: CheckpointRef, train: TrainParams, references: ReferenceParams
) -> Piece:
    """The steering rows' losses by domain, and how fast they were measured.

    Not needed where the references are measured with the base model: its losses are where their
    curves begin.
    """
    if references.mode == "measure" and references.proxy is None:
        return not_needed()
    inputs: dict[str, Any] = {
        "store": store.fingerprint,
        "base": base.fingerprint,
        "rows": train.heldout_rows_per_domain,
        "row_choice": ROW_CHOICE,
    }
    if train.heldout_tokens_per_domain is not None:
        inputs["tokens"] = train.heldout_tokens_per_domain
    if train.quantization is not None:
        inputs["quantization"] = train.quantization

    def make(_folder: Path) -> dict[str, Any]:
        from versatune.modeling.heldout import chosen_rows, heldout_losses
        from versatune.modeling.room import load_checked
        from versatune.training.precision import load_base, resolved

        params = resolved(train)
        split = TokenizedSplit.load(store, "steering")
        quantized = params.quantization is not None  # such a model lies on its device already
        model = load_base(base, params) if quantized else load_checked(base, params.dtype, "train")
        began = time.monotonic()
        found = heldout_losses(
            model,
            split,
            rows_per_domain=train.heldout_rows_per_domain,
            tokens_per_domain=train.heldout_tokens_per_domain,
            batch_tokens=train.heldout_batch_tokens,
        )
        seconds = time.monotonic() - began
        chosen = chosen_rows(split, train.heldout_rows_per_domain, train.heldout_tokens_per_domain)
        rows = np.concatenate(chosen)
        return {
            "losses": {name: measured.nats_per_token for name, measured in found.items()},
            "tokens_per_second": float(split.lengths[rows].sum()) / max(seconds, 1e-9),
        }

    return Piece(inputs, make)
