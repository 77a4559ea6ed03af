"""Learning and forgetting: changes against the base model, and the paper's summaries."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from versatune.errors import VersatuneError
from versatune.evaluation.results import ANSWER_NATS, LOSS
from versatune.intervals import (
    Array,
    bonett_price,
    expm1,
    mean_stderr,
    relative_change,
    t_interval,
    wilson,
)

Verdict = Literal["better", "worse", "not distinguishable"]

LOWER_IS_BETTER = frozenset(
    {LOSS, ANSWER_NATS, "bits_per_byte", "perplexity", "word_perplexity", "brier_score"}
)
"""Metrics that fall as a model gets better; all others rise."""

CHANGE_COLUMNS = (
    *("domain", "task", "metric", "base", "tuned", "change", "low", "high", "relative"),
    *("verdict", "n", "became_wrong", "became_wrong_low", "became_wrong_high"),
    *("became_right", "became_right_low", "became_right_high"),
)
"""The ``forgetting`` table. ``low``, ``high``: 95 % interval of ``change``, paired by item; that of
a share of right answers is :func:`bonett_price`'s; that of a loss is
base * (exp(x ± t * stderr(x)) - 1) with x the :func:`log_ratio` of its rows, so divided by ``base``
it is the interval of ``relative``, which ends above -1; ``relative``: change / base;
``became_wrong``: share of all items that were right and are wrong now."""


def relative_gains(values: Sequence[float] | Array, baseline: Sequence[float] | Array) -> Array:
    """(v_i - b_i) / b_i, shape (n,); the paper's headline is their mean (method section 2).

    Raises ValueError on lengths that differ, none, or a baseline that is not positive.
    """
    v, b = np.asarray(values, np.float64), np.asarray(baseline, np.float64)
    if v.shape != b.shape or v.size == 0:
        raise ValueError(f"{v.size} values against {b.size} of the baseline")
    if not (b > 0).all():
        raise ValueError("a relative gain needs a baseline above zero")
    result: Array = (v - b) / b
    return result


def expansion_summary(changes: Mapping[str, float], target: str) -> dict[str, float]:
    """``target_gain`` and ``others_change``, the sum of the changes of the other domains.

    ``changes``: by domain, in a metric where more is better. Raises KeyError without the target.
    """
    others = sum(change for domain, change in changes.items() if domain != target)
    return {"target_gain": float(changes[target]), "others_change": float(others)}


def less_degradation(others_change: float, baseline: float) -> float:
    """The share of the baseline's degradation of the other domains that was avoided.

    1 - others / baseline; NaN where the baseline did not degrade them at all.
    """
    return 1 - others_change / baseline if baseline < 0 else math.nan


def transitions(before: Array, after: Array) -> dict[str, float]:
    """Shares of items that ``became_wrong`` and ``became_right``, with Wilson's 95 % intervals.

    Scores 0 or 1, shape (n,), the same items in the same order. Raises ValueError otherwise.
    """
    if before.shape != after.shape or before.size == 0:
        raise ValueError(f"{before.size} items before, {after.size} after")
    result: dict[str, float] = {}
    for name, event in (
        ("became_wrong", (before == 1) & (after == 0)),
        ("became_right", (before == 0) & (after == 1)),
    ):
        share = float(event.mean())
        low, high = wilson(share, event.size)
        result |= {name: share, f"{name}_low": low, f"{name}_high": high}
    return result


def verdict(low: float, high: float, *, lower_is_better: bool = False) -> Verdict:
    """``better`` or ``worse`` only when the whole interval of the change lies on one side of 0."""
    if not (low > 0 or high < 0):
        return "not distinguishable"
    return "better" if (high < 0) == lower_is_better else "worse"


def changes(rows: pd.DataFrame, items: pd.DataFrame, base: str, tuned: str) -> pd.DataFrame:
    """The ``forgetting`` table: the model called ``tuned`` against the one called ``base``.

    ``rows`` and ``items`` are the ``evaluation`` and ``evaluation_items`` tables with both.
    Where items of a metric are known for both models the interval is of paired differences;
    where not (a group of the harness) it is that of two independent measurements. Raises
    VersatuneError when the models' items of a metric are not the same ones.
    """
    keys = ["domain", "task", "metric"]
    before = rows[rows["model"] == base].set_index(keys)
    after = rows[rows["model"] == tuned].set_index(keys)
    mine, theirs = items[items["model"] == base], items[items["model"] == tuned]
    pairs = mine.merge(theirs, on=[*keys, "item"], suffixes=("_before", "_after"))
    counts = [part.groupby(keys).size() for part in (mine, theirs, pairs)]
    for key in counts[0].index.intersection(counts[1].index):
        numbers = [int(count.get(key, 0)) for count in counts]
        if len(set(numbers)) > 1:
            raise VersatuneError(
                f"{key[2]} of {key[1]} ({key[0]}) was measured on other items for {base} than for "
                f"{tuned} ({numbers[0]} and {numbers[1]}, {numbers[2]} in common), so one "
                "is older. Delete 07_model_output/evaluations below the data folder and evaluate "
                "again."
            )
    by_metric = dict(list(pairs.groupby(keys, sort=False)))
    found = {
        key: _change(key, before.loc[key], after.loc[key], by_metric.get(key))
        for key in after.index
        if key in before.index
    }
    for (domain, task, metric), row in found.items():
        loss = found.get((domain, task, LOSS))
        if loss is not None and metric in ("bits_per_byte", "perplexity"):
            found[domain, task, metric] = row | _in_other_units(metric, row["base"], loss)
    return pd.DataFrame(list(found.values()), columns=list(CHANGE_COLUMNS))


def _in_other_units(metric: str, base: float, loss: dict[str, Any]) -> dict[str, Any]:
    """The loss's paired interval in bits per byte (a constant times it) or perplexity (its exp):
    one change has one verdict, whatever the unit."""
    if metric == "perplexity":
        low, high = (base * expm1(loss[end]) for end in ("low", "high"))
    else:
        scale = base / loss["base"] if loss["base"] else 0.0
        low, high = scale * loss["low"], scale * loss["high"]
    return {"low": low, "high": high, "verdict": loss["verdict"]}


def _change(
    key: tuple[str, str, str], before: pd.Series, after: pd.Series, pairs: pd.DataFrame | None
) -> dict[str, Any]:
    domain, task, metric = key
    base, tuned = float(before["value"]), float(after["value"])
    change = tuned - base
    moved: dict[str, float] = {}
    if pairs is None:
        half = 1.96 * math.hypot(float(before["stderr"]), float(after["stderr"]))
        low, high = change - half, change + half
    else:
        first, second = (pairs["score" + end].to_numpy(np.float64) for end in ("_before", "_after"))
        if metric == LOSS:
            _, low, high, _ = relative_change(first, second)
            low, high = base * low, base * high
        elif np.isin([first, second], (0.0, 1.0)).all():
            low, high, _ = bonett_price(first, second)
            moved = transitions(first, second)
        else:
            low, high = t_interval(*mean_stderr(second - first), len(first))
    return {
        "domain": domain,
        "task": task,
        "metric": metric,
        "base": base,
        "tuned": tuned,
        "change": change,
        "low": low,
        "high": high,
        "relative": change / base if base else math.nan,
        "verdict": verdict(low, high, lower_is_better=metric in LOWER_IS_BETTER),
        "n": int(after["n"]),
        **moved,
    }
