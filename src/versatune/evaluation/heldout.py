"""Held-out loss as rows of the ``evaluation`` table."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from versatune.artifacts import FolderRef
from versatune.evaluation import ranks
from versatune.evaluation.config import EvaluateParams
from versatune.evaluation.results import HELD_OUT, ITEM_COLUMNS, LOSS, ROW_COLUMNS, Measured, table
from versatune.intervals import t_interval

if TYPE_CHECKING:
    from versatune.modeling.heldout import HeldOut


def measure_heldout(
    store: FolderRef, params: EvaluateParams, model: Any, _tokenizer: Any = None
) -> Measured:
    """Losses of ``model`` on the report rows of every domain of ``store``.

    Metrics: nats_per_token, bits_per_byte, perplexity, with errors over rows. Items: each row's
    nats and tokens, so that two models can be compared row by row.
    """
    from versatune.data.store import TokenizedSplit
    from versatune.modeling.heldout import chosen_rows, row_losses, summary

    split = TokenizedSplit.load(store, "report")
    chosen = chosen_rows(split, params.rows_per_domain)
    rows_of_all = np.concatenate(chosen)
    sums = row_losses(
        model, split, rows_of_all, params.batch_tokens, rank=ranks.rank(), world=ranks.world()
    )
    rows: list[dict[str, Any]] = []
    items: list[dict[str, Any]] = []
    parts = np.split(sums, np.cumsum([len(c) for c in chosen])[:-1])
    for domain, numbers, part in zip(split.domains, chosen, parts, strict=True):
        loss = summary(domain, part[:, 0], part[:, 1], int(split.n_bytes[numbers].sum()))
        about = {"domain": domain, "task": HELD_OUT}
        rows += [{**about, **row, "task_version": store.fingerprint} for row in loss_rows(loss)]
        items += [
            {**about, "metric": LOSS, "item": f"report:{number}", "score": s, "weight": w}
            for number, (s, w) in zip(numbers, part, strict=True)
        ]
    return Measured(table(rows, ROW_COLUMNS), table(items, ITEM_COLUMNS[1:]))


def loss_rows(loss: "HeldOut") -> list[dict[str, Any]]:
    """The three metrics of one domain's loss.

    Bits per byte is the loss times a constant of the text (tokens over bytes and ln 2), so its
    errors are the loss's, scaled. Perplexity is exp(loss): stderr by the delta method, interval
    by the ends of the loss's interval.
    """
    value, stderr, n = loss.nats_per_token, loss.stderr, loss.n_rows
    low, high = t_interval(value, stderr, n)
    low = max(low, 0.0)  # NaN stays NaN
    scale = loss.bits_per_byte / value if value > 0 else 0.0
    perplexity = _exp(value)
    numbers = (
        (LOSS, value, stderr, low, high),
        ("bits_per_byte", loss.bits_per_byte, scale * stderr, scale * low, scale * high),
        ("perplexity", perplexity, perplexity * stderr, _exp(low), _exp(high)),
    )
    keys = ("metric", "value", "stderr", "low", "high")
    return [{**dict(zip(keys, row, strict=True)), "n": n} for row in numbers]


def _exp(value: float) -> float:
    return math.inf if value >= 700 else math.exp(value)
