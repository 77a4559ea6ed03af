"""A comparison's verdicts in words."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from versatune.evaluation import comparison as against
from versatune.evaluation.results import LOSS


def spoken(summary: pd.DataFrame, loss: str = LOSS) -> list[str]:
    """The verdicts over all domains in words, a line a strategy and metric."""
    found = summary[(summary["measure"] == "relative_gain") & (summary["domain"] == against.ALL)]
    said = "mean held-out loss" if loss == LOSS else loss
    return [_spoken(row) for row in found.replace({"metric": {LOSS: said}}).to_dict("records")]


def _spoken(row: Mapping[Any, Any]) -> str:
    lead = f"{row['strategy']}, {row['metric']}: {row['value']:+.2%} against {row['baseline']} ("
    n = int(row["n_seeds"])
    if n < against.MIN_SEEDS:
        seeds = "1 seed" if n == 1 else f"{n} seeds"
        return f"{lead}{seeds}; no verdict below {against.MIN_SEEDS})"
    bases = int(row["n_bases"])
    of = f"{n} seeds" if bases == 1 else f"{n} seeds of {bases} base models"
    said = f"{lead}{row['low']:+.2%} to {row['high']:+.2%}, {of}): {row['verdict']}"
    margin = row["not_worse_by"]
    if row["verdict"] == "not distinguishable" and math.isfinite(margin):
        said += f"; not worse by more than {margin:.2%}"
    return said
