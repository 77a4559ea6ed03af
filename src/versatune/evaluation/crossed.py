"""The error of a paired difference over seeds *and* held-out rows: both were drawn, both vary.

Every run is measured on the same rows, so a difference d_si of two strategies has a seed s and a
row i. The variance of its mean is the variance over seeds of the seeds' means, plus
the variance over rows of the rows' means (the bootstrap over both, Owen 2007, in closed form). Rows
that differ by seed count in both, which errs on the safe side.

Where there are several base models, the draw is of base models, and of seeds within each. Every
base counts alike, and the error is that of the bases' means, as if each were one seed. It is never
below what the seeds within the bases explain. All are asked the same rows, so more of them don't
make the error from rows smaller.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from versatune.evaluation.results import HELD_OUT, LOSS, task_accuracies
from versatune.intervals import Array, ratio_stderr

EQUAL = 1e-9
"""Differences that spread by less than this part of their size count as equal."""

Draw = int | tuple[str, int]
"""A seed; with its base model before it where there are several."""


def base_of(draw: Draw) -> str:
    """The base model of a draw; empty where there is only one."""
    return in_order(draw)[0]


def in_order(draw: Draw) -> tuple[str, int]:
    """What draws are sorted by: base model, then seed."""
    return draw if isinstance(draw, tuple) else ("", draw)


@dataclass(frozen=True)
class _Task:
    """The items of one task that all strategies share; the arrays have shape (n,)."""

    domain: str
    scores: Mapping[str, Array]
    """By strategy, means over seeds; NaN where a strategy has no such item."""
    weights: Array


@dataclass(frozen=True)
class RowErrors:
    """Standard errors, only from the draw of rows, of strategies' paired differences."""

    tasks: Mapping[str, list[list[_Task]]] = field(default_factory=dict)
    """By metric (held-out loss, accuracy), of each base model."""

    def stderrs(self, metric: str, strategy: str, baseline: str) -> dict[str, float]:
        """By domain; empty where single rows are not known for both strategies.

        A domain's accuracy is the mean over its tasks. Of several base models, the mean of each
        one's error: rows that are hard for one are hard for others.
        """
        each = [self._of_base(tasks, strategy, baseline) for tasks in self.tasks.get(metric, [])]
        names = dict.fromkeys(name for found in each for name in found)
        return {n: math.fsum(found.get(n, 0.0) for found in each) / len(each) for n in names}

    def _of_base(self, tasks: list[_Task], strategy: str, baseline: str) -> dict[str, float]:
        found: dict[str, list[float]] = {}
        for task in tasks:
            if not {strategy, baseline} <= task.scores.keys():
                continue
            difference = task.scores[strategy] - task.scores[baseline]
            known = ~np.isnan(difference)
            if known.any():
                error = ratio_stderr(difference[known], task.weights[known])
                found.setdefault(task.domain, []).append(error)
        return {d: math.hypot(*errors) / len(errors) for d, errors in found.items()}

    def mean(
        self,
        metric: str,
        strategy: str,
        baseline: str,
        counts: Mapping[str, float] | None = None,
    ) -> float:
        """The same of the mean over domains; 0 where rows are not known.

        ``counts``: how much each domain counts instead of 1 / k.
        """
        found = self.stderrs(metric, strategy, baseline)
        if counts is None:
            counts = dict.fromkeys(found, 1 / max(1, len(found)))
        return math.hypot(*(counts[name] * error for name, error in found.items()))


def row_errors(items: pd.DataFrame | None, accuracy: str) -> RowErrors:
    """``items``: the runs' items, with ``strategy`` and ``seed``; ``accuracy``: that metric's name.

    Strategies are compared over the seeds that are there.
    """
    if items is None or items.empty:
        return RowErrors()
    bases = [part for _, part in items.groupby("base_model")] if "base_model" in items else [items]
    losses = [part[(part["metric"] == LOSS) & (part["task"] == HELD_OUT)] for part in bases]
    answers = [task_accuracies(part, by=("strategy", "seed", "item")) for part in bases]
    return RowErrors({LOSS: [_tasks(p) for p in losses], accuracy: [_tasks(p) for p in answers]})


def _tasks(items: pd.DataFrame) -> list[_Task]:
    found = []
    for (domain, _), part in items.groupby(["domain", "task"], sort=False):
        scores = part.pivot_table(index="item", columns="strategy", values="score", sort=False)
        weights = part.groupby("item", sort=False)["weight"].mean().reindex(scores.index)
        by_strategy = {str(name): scores[name].to_numpy(np.float64) for name in scores}
        found.append(_Task(str(domain), by_strategy, weights.to_numpy(np.float64)))
    return found


def crossed_stderr(
    differences: npt.ArrayLike, row_stderr: float, bases: Sequence[str] | None = None
) -> tuple[float, float, int]:
    """Mean of the seeds' differences, shape (n,), its standard error, and degrees of freedom n - 1.

    ``row_stderr``: that only from the rows, of this mean. Seeds that agree to the last digit do
    not show how far others would differ: without an error from rows it is infinite then.
    ``bases``: the base model of each; of several, n is their number, and the mean is over theirs.
    """
    values = np.asarray(differences, dtype=np.float64)
    draws = values if bases is None else base_means(values, bases)
    n, mean = len(draws), float(np.mean(draws))
    if n < 2:
        return mean, math.nan, 0
    spread = float(np.std(draws, ddof=1)) / math.sqrt(n)
    if n < len(values) and bases is not None:
        spread = max(spread, _within(values, bases))
    if spread <= EQUAL * float(np.abs(values).max()):
        spread = 0.0
    stderr = math.hypot(spread, row_stderr)
    return mean, stderr or math.inf, n - 1


def base_means(values: npt.ArrayLike, bases: Sequence[str]) -> Array:
    """Of each base model the mean over its seeds; the values themselves where there is one base."""
    of = np.asarray(values, dtype=np.float64)
    names = list(dict.fromkeys(bases))
    if len(names) == 1:
        return of
    each = np.asarray(bases)
    return np.array([of[each == name].mean() for name in names])


def _within(values: Array, bases: Sequence[str]) -> float:
    """The standard error of the bases' mean from the seeds within them; of one seed, none."""
    each = np.asarray(bases)
    parts = [values[each == name] for name in dict.fromkeys(bases)]
    known = [float(np.var(part, ddof=1)) / len(part) for part in parts if len(part) > 1]
    return math.sqrt(math.fsum(known)) / len(parts)
