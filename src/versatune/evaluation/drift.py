"""Drift: how far the tuned model has moved from the base, on texts that the base model generated.

Forgetting measured without a labelled row, by the domain that the probe's judge assigned to each
text.
"""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from versatune.data.own_rows import OwnText, examples
from versatune.evaluation.config import EvaluateParams
from versatune.evaluation.results import library_versions, table
from versatune.intervals import Array, ratio_stderr, t_interval
from versatune.modeling.checkpoints import CheckpointRef, load_model, load_tokenizer
from versatune.work import Piece

COLUMNS = ("domain", "drift", "stderr", "low", "high", "n", "tokens", "trained_on")
"""The ``drift`` table: KL(base || tuned) in nats per token with its 95 % interval over ``n`` texts;
``trained_on``: whether other such texts of the domain were trained on."""

VERSION = 1
"""Raised when the same models and texts get other numbers, so that kept ones are not used."""
TABLE = "drift.parquet"


def per_token(nats: Array, tokens: Array) -> tuple[float, float]:
    """sum(nats) / sum(tokens) over texts, both shape (n,), and its stderr (ratio estimator).

    The stderr is NaN for one text.
    """
    mean = float(nats.sum() / tokens.sum())
    return mean, ratio_stderr(nats, tokens) if len(nats) > 1 else math.nan


def drift(
    base: CheckpointRef,
    tuned: CheckpointRef,
    texts: Sequence[OwnText],
    fingerprint: str,
    trained_on: Sequence[str],
    params: EvaluateParams,
) -> Piece:
    """The ``drift`` table of ``tuned``, as :data:`TABLE` in a folder.

    ``texts``: the base model's own, of which the ``report`` split counts; ``fingerprint`` stands
    for them. Both models are in memory while it is made.
    """
    inputs = {
        "version": VERSION,
        "versions": library_versions(),
        "models": [base.fingerprint, tuned.fingerprint],
        "texts": fingerprint,
        "trained_on": list(trained_on),
        "dtype": params.dtype,
    }
    return Piece(inputs, partial(_measure, base, tuned, texts, trained_on, params))


def _measure(
    base: CheckpointRef,
    tuned: CheckpointRef,
    texts: Sequence[OwnText],
    trained_on: Sequence[str],
    params: EvaluateParams,
    folder: Path,
) -> dict[str, Any]:
    import torch

    from versatune.modeling.drift import text_drift
    from versatune.modeling.room import check_room

    held_out = [text for text in texts if text.split == "report"]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    check_room(base.path, tuned.path, dtype=params.dtype, key="evaluate")
    models: list[Any] = [load_model(ref, dtype=params.dtype) for ref in (base, tuned)]
    tokens = tokenised(base, held_out)
    kept = [(text, ids) for text, ids in zip(held_out, tokens, strict=True) if len(ids) > 1]
    first, last = (model.to(device) for model in models)
    sums = text_drift(first, last, [ids for _, ids in kept], params.batch_tokens)
    names = np.array([text.domain for text, _ in kept])
    rows = [
        drift_row(name, sums[names == name], name in trained_on)
        for name in dict.fromkeys(names.tolist())
    ]
    table(rows, COLUMNS).to_parquet(folder / TABLE, index=False)
    return {"n": len(kept)}


def drift_row(domain: str, sums: Array, trained_on: bool) -> dict[str, Any]:
    """A domain's row of the table from its texts' nats and tokens, shape (n, 2)."""
    mean, stderr = per_token(sums[:, 0], sums[:, 1])
    low, high = t_interval(mean, stderr, len(sums))
    return {
        "domain": domain,
        "drift": mean,
        "stderr": stderr,
        "low": max(low, 0.0),  # NaN stays NaN
        "high": high,
        "n": len(sums),
        "tokens": int(sums[:, 1].sum()),
        "trained_on": trained_on,
    }


def tokenised(base: CheckpointRef, texts: Sequence[OwnText]) -> list[npt.NDArray[np.int64]]:
    """Each text as the base model wrote it, with the template's tokens around two turns.

    Empty for a text without tokens.
    """
    found = examples(load_tokenizer(base), texts, max_length=1 << 30)
    nothing = np.zeros(0, dtype=np.int64)
    return [of[0].ids.astype(np.int64) if isinstance(of, list) else nothing for of in found]
