"""The error of a paired difference over seeds *and* held-out rows: both were drawn, both vary.

Every run is measured on the same rows, so a difference d_si of two strategies has a seed s and a
row i. The variance of its mean is the variance over seeds of the seeds' means, plus
the variance over rows of the rows' means (the bootstrap over both, Owen 2007, in closed form). Rows
that differ by seed count in both, which errs on the safe side.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from versatune.evaluation.results import HELD_OUT, LOSS, task_accuracies
from versatune.intervals import Array, ratio_stderr

EQUAL = 1e-9
"""Differences that spread by less than this part of their size count as equal."""


@dataclass(frozen=True)
class _Task:
    """The items of one task that all strategies share; the arrays have shape (n,)."""

    domain: str
    scores: Mapping[str, Array]
    """By strategy, means over seeds; NaN where a strategy has no such item."""
    weights: Array


@dataclass(frozen=True)
class RowErrors:
    """Standard errors, from the draw of rows alone, of strategies' paired differences."""

    tasks: Mapping[str, list[_Task]] = field(default_factory=dict)
    """By metric: held-out loss, accuracy."""

    def stderrs(self, metric: str, strategy: str, baseline: str) -> dict[str, float]:
        """By domain; empty where single rows are not known for both strategies.

        A domain's accuracy is the mean over its tasks.
        """
        found: dict[str, list[float]] = {}
        for task in self.tasks.get(metric, []):
            if not {strategy, baseline} <= task.scores.keys():
                continue
            difference = task.scores[strategy] - task.scores[baseline]
            known = ~np.isnan(difference)
            if known.any():
                error = ratio_stderr(difference[known], task.weights[known])
                found.setdefault(task.domain, []).append(error)
        return {d: math.hypot(*errors) / len(errors) for d, errors in found.items()}

    def mean(self, metric: str, strategy: str, baseline: str) -> float:
        """The same of the mean over domains; 0 where rows are not known."""
        found = self.stderrs(metric, strategy, baseline).values()
        return math.hypot(*found) / len(found) if found else 0.0


def row_errors(items: pd.DataFrame | None, accuracy: str) -> RowErrors:
    """``items``: the runs' items, with ``strategy`` and ``seed``; ``accuracy``: that metric's name.

    Strategies are compared over the seeds that are there.
    """
    if items is None or items.empty:
        return RowErrors()
    losses = items[(items["metric"] == LOSS) & (items["task"] == HELD_OUT)]
    answers = task_accuracies(items, by=("strategy", "seed", "item"))
    return RowErrors({LOSS: _tasks(losses), accuracy: _tasks(answers)})


def _tasks(items: pd.DataFrame) -> list[_Task]:
    found = []
    for (domain, _), part in items.groupby(["domain", "task"], sort=False):
        scores = part.pivot_table(index="item", columns="strategy", values="score", sort=False)
        weights = part.groupby("item", sort=False)["weight"].mean().reindex(scores.index)
        by_strategy = {str(name): scores[name].to_numpy(np.float64) for name in scores}
        found.append(_Task(str(domain), by_strategy, weights.to_numpy(np.float64)))
    return found


def crossed_stderr(differences: npt.ArrayLike, row_stderr: float) -> tuple[float, float, int]:
    """Mean of the seeds' differences, shape (n,), its standard error, and degrees of freedom n - 1.

    ``row_stderr``: that from the rows alone, of this mean. Seeds that agree to the last digit do
    not show how far others would differ: without an error from rows it is infinite then.
    """
    values = np.asarray(differences, dtype=np.float64)
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return mean, math.nan, 0
    spread = float(np.std(values, ddof=1))
    if spread <= EQUAL * float(np.abs(values).max()):
        spread = 0.0
    stderr = math.hypot(spread / math.sqrt(n), row_stderr)
    return mean, stderr or math.inf, n - 1
