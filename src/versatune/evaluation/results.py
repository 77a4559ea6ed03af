"""What a measurement gives: rows of the ``evaluation`` table, and every single item's score."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from versatune.evaluation.intervals import Z95, mean_stderr, share_stderr, wilson

ROW_COLUMNS = ("domain", "task", "metric", "value", "stderr", "low", "high", "n", "task_version")
"""What one measurement fills in of the ``evaluation`` table."""

COLUMNS = ("model", *ROW_COLUMNS, "checkpoint", "versions")
"""The ``evaluation`` table. ``model``: the model's part (base, tuned, a strategy);
``checkpoint``: the fingerprint of its weights; ``n``: items, or rows of a held-out loss."""

ITEM_COLUMNS = ("model", "domain", "task", "metric", "item", "score", "weight")
"""The ``evaluation_items`` table. ``score``: 0 or 1, or any number of a harness metric; for
held-out loss the nats of the row, with its tokens as ``weight`` (1 everywhere else)."""

HELD_OUT = "held_out"
"""The task name of held-out losses."""

LOSS = "nats_per_token"


@dataclass(frozen=True)
class Measured:
    """One part of an evaluation, without the model's name."""

    rows: pd.DataFrame
    items: pd.DataFrame


def library_versions() -> str:
    """Versions of what numbers depend on, in one line."""
    names = ("versatune", "torch", "transformers", "lm-eval")
    return ", ".join(f"{name} {version(name)}" for name in names)


def score_row(scores: Sequence[float]) -> dict[str, Any]:
    """value, stderr, low, high, n of the mean of item scores.

    Scores of 0 and 1 get Wilson's interval, others mean ± 1.96 stderr.
    """
    values = np.asarray(scores, dtype=np.float64)
    if np.isin(values, (0.0, 1.0)).all():
        share = float(values.mean())
        low, high = wilson(share, len(values))
        stderr = share_stderr(share, len(values))
    else:
        share, stderr = mean_stderr(values)
        low, high = share - Z95 * stderr, share + Z95 * stderr
    return {"value": share, "stderr": stderr, "low": low, "high": high, "n": len(values)}


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """A data frame with these columns, in this order, also when there are no rows."""
    return pd.DataFrame(list(rows), columns=list(columns))
