"""Verdicts corrected for their number: Holm's correction."""

import math
from typing import Any

import numpy as np
import pandas as pd

from versatune.intervals import holm

ALL = "all"
"""The ``domain`` of a measure over all domains."""

EACH = "gain_over_each"
"""The measure that sets every strategy against every other."""

LEVEL = 0.95
"""Of intervals and, after Holm's correction, of verdicts."""


def with_holm(summary: pd.DataFrame) -> pd.DataFrame:
    """The summary with ``p_holm``, and verdicts that hold after it.

    A family is what is read together: a metric's measure over single domains, or over all. Of
    ``gain_over_each`` the two directions of a pair are one test, at the larger p.
    """
    names = list(zip(summary["strategy"], summary["baseline"], strict=True))
    families: dict[tuple[str, str, bool], dict[Any, list[int]]] = {}
    keys = zip(summary["metric"], summary["measure"], summary["domain"], strict=True)
    for i, (metric, measure, domain) in enumerate(keys):
        test = frozenset(names[i]) if measure == EACH else i
        family = families.setdefault((metric, measure, domain == ALL), {})
        family.setdefault(test, []).append(i)
    p = summary["p_value"].to_numpy(np.float64)
    adjusted = np.full(len(summary), math.nan)
    for family in families.values():
        for rows, value in zip(
            family.values(), holm([p[rows].max() for rows in family.values()]), strict=True
        ):
            adjusted[rows] = value
    failed = adjusted >= 1 - LEVEL
    verdicts = [
        "not distinguishable" if fails and v in ("better", "worse") else v
        for v, fails in zip(summary["verdict"], failed, strict=True)
    ]
    return summary.assign(p_holm=adjusted, verdict=pd.Series(verdicts, summary.index, dtype=object))
