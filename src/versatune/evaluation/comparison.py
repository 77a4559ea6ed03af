"""Strategies against a baseline, seed by seed: paired differences, intervals and a verdict."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from versatune.evaluation.crossed import (
    Draw,
    RowErrors,
    base_means,
    base_of,
    crossed_stderr,
    in_order,
    row_errors,
)
from versatune.evaluation.forgetting import (
    expansion_summary,
    less_degradation,
    relative_gains,
    verdict,
)
from versatune.evaluation.many_verdicts import ALL, EACH, with_holm
from versatune.evaluation.objective import DeclaredObjective, change_stderrs
from versatune.evaluation.results import HELD_OUT, LOSS, task_accuracies
from versatune.intervals import Array, ratio_interval, t_interval, t_p_value

__all__ = ["ALL", "EACH", "headline", "scores", "summarise", "with_holm"]

COMPARISON_COLUMNS = (
    *("strategy", "kind", "seed", "domain", "task", "metric", "value", "stderr", "low", "high"),
    *("n", "task_version", "base", "change", "change_low", "change_high"),
    *("became_wrong", "became_right", "versions"),
)
"""The ``comparison`` table, a row a strategy, seed, domain, task and metric. ``base``: the same
number of the model all of them began from; ``change``: since then, paired by item."""

COMPARISON_ITEM_COLUMNS = (
    *("strategy", "seed", "domain", "task", "metric", "item", "score", "weight"),
)
"""The ``comparison_items`` table, as ``evaluation_items``: a row a run and item."""

SUMMARY_COLUMNS = (
    *("metric", "measure", "domain", "strategy", "baseline", "value", "value_low", "value_high"),
    *("difference", "low", "high", "n_seeds", "n_bases", "p_value", "p_holm", "not_worse_by"),
    "verdict",
)
"""The ``comparison_summary`` table. ``value``: mean over seeds, with its t-interval;
``difference``: mean over seeds of the paired difference from the baseline, with its t-interval over
seeds, rows and base models (:mod:`versatune.evaluation.crossed`); ``n_seeds``: seeds of all
``n_bases`` base models together; ``p_value``: of no difference, and ``p_holm`` corrected for all
verdicts of the same metric and measure, single domains and all of them apart;
``not_worse_by``: the margin within which the strategy is not worse than the baseline, the end of
the interval on the bad side (0: it is better); ``verdict``: on the difference, by ``p_holm``.
Below :data:`MIN_SEEDS` there are no intervals (NaN) and no verdicts (None)."""

ACCURACY = "accuracy"
"""A domain's mean over its tasks (:func:`versatune.evaluation.results.task_accuracies`)."""

MIN_SEEDS = 3
"""With fewer seeds there is no interval and no verdict: two seeds that happen to agree (as shares
of few items do) would give an interval of width 0."""

OBJECTIVE, BEYOND = "objective", "beyond_tolerance"
"""The measures of the declared objective, and of domains above their tolerance."""

Scores = dict[tuple[str, Draw], dict[str, float]]
"""(strategy, draw) -> domain -> number."""


def scores(comparison: pd.DataFrame, metric: str, column: str = "value") -> Scores:
    """One number a strategy, seed and domain, of ``nats_per_token`` or :data:`ACCURACY`.

    ``column``: ``value``, or ``base`` for that of the model all began from. A column
    ``base_model`` tells runs of several base models apart. Empty when it was not
    measured.
    """
    several = ["base_model"] if "base_model" in comparison else []
    if metric == LOSS:
        found = comparison[(comparison["metric"] == LOSS) & (comparison["task"] == HELD_OUT)]
    else:
        found = task_accuracies(comparison, by=(*several, "strategy", "seed"))
    result: Scores = {}
    keys = [*several, "strategy", "seed", "domain"]
    means = found.groupby(keys, sort=False)[column].mean().reset_index()
    for row in means.to_dict("records"):
        seed = int(row["seed"])
        draw: Draw = (str(row["base_model"]), seed) if several else seed
        result.setdefault((str(row["strategy"]), draw), {})[str(row["domain"])] = float(row[column])
    return result


def summarise(
    comparison: pd.DataFrame,
    baseline: str,
    target: str | None = None,
    declared: DeclaredObjective | None = None,
    items: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The ``comparison_summary`` table; ``items``: ``comparison_items``, every row's score.

    ``declared``: the objective of training (None: the mean loss). Strategies are ranked and judged
    by gains in it; gains in accuracy are of the mean.

    Measures, for held-out loss and for accuracy where it was measured:

    - ``value``: each domain, and the mean over ``all``;
    - ``relative_gain``: of the mean over domains over the baseline's, seed by seed (for losses
      the relative fall); its ``value`` is the paper's mean relative gain;
    - ``gain_over_each``: the same over every other strategy in turn, which is its ``baseline``;
    - ``objective``: its value, where that is not the mean of the losses;
    - ``beyond_tolerance``: how many domains end above the tolerance by more than noise;
    - with ``target``: ``target_gain`` and ``others_change`` since the base (for losses the fall
      counts as gain), and ``less_degradation`` than the baseline's: a ratio of means over seeds,
      whose interval is Fieller's (:func:`ratio_interval`), from :data:`MIN_SEEDS` on.

    Only seeds that both have are paired. Rows with a column ``base_model`` are of several base
    models; ``worst`` can't be judged over these, since references are of one.
    """
    rows: list[dict[str, Any]] = []
    declared = declared or DeclaredObjective()
    drawn = row_errors(items, ACCURACY)
    for metric in (LOSS, ACCURACY):
        found = scores(comparison, metric)
        base = scores(comparison, metric, "base")
        strategies = list(dict.fromkeys(strategy for strategy, _ in found))
        measures = list(_measures(metric, found, base, target))
        levels = {key: _mean(by_domain) for key, by_domain in found.items()}
        counts = declared.per_loss(list(base.values())) if metric == LOSS and found else None
        in_points = metric == LOSS and declared.params.kind == "worst"
        # The largest gap is another domain's in another draw of rows: it counts the seeds alone.
        draws = None if in_points else drawn
        if metric == LOSS and found:
            errors = _stderrs(comparison)
            levels = {key: declared.value(v, base[key]) for key, v in found.items()}
            if declared.params.kind != "mean":
                measures.append((OBJECTIVE, ALL, levels))
            over = {key: declared.beyond(v, base[key], errors[key]) for key, v in found.items()}
            measures.append((BEYOND, ALL, {key: float(len(names)) for key, names in over.items()}))
        for measure, domain, values in measures:
            for strategy in strategies:
                error = _row_error(
                    measure, domain, drawn.stderrs(metric, strategy, baseline), target
                )
                if measure == OBJECTIVE and draws:
                    error = draws.mean(metric, strategy, baseline, counts)
                if row := _paired(values, strategy, baseline, _falls(metric, measure), error):
                    rows.append({"metric": metric, "measure": measure, "domain": domain, **row})
        for against, named in ((baseline, {}), *((s, {"measure": EACH}) for s in strategies)):
            gained = _relative_gains(metric, levels, strategies, against, in_points, draws, counts)
            rows += [row | named for row in gained]
        others = next((values for name, _, values in measures if name == "others_change"), {})
        rows += _less_degradation(metric, others, strategies, baseline)
    return with_holm(pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS)))


def _row_error(
    measure: str, domain: str, rows_of: Mapping[str, float], target: str | None
) -> float:
    """Standard error from the draw of rows of a measure's difference; 0 where not known."""
    if measure == "value" and domain == ALL:
        return math.hypot(*rows_of.values()) / len(rows_of) if rows_of else 0.0
    if measure == "others_change":
        return math.hypot(*(error for name, error in rows_of.items() if name != target))
    return rows_of.get(domain, 0.0)


def headline(summary: pd.DataFrame) -> dict[str, float]:
    """Measures over all domains, against the baseline, by name."""
    found = summary[~summary["measure"].isin(["value", EACH])]
    return {
        f"{row['measure']}/{row['metric']}/{row['strategy']}": float(row["value"])
        for row in found.to_dict("records")
    }


Series = dict[tuple[str, Draw], float]
"""(strategy, draw) -> number."""


def _measures(
    metric: str, found: Scores, base: Scores, target: str | None
) -> Iterator[tuple[str, str, Series]]:
    domains = dict.fromkeys(name for by_domain in found.values() for name in by_domain)
    for domain in domains:
        yield "value", domain, {k: v[domain] for k, v in found.items() if domain in v}
    yield "value", ALL, {k: _mean(v) for k, v in found.items()}
    if target is not None and target in domains:
        sums = {k: expansion_summary(gains(metric, v, base[k]), target) for k, v in found.items()}
        for name, where in (("target_gain", target), ("others_change", ALL)):
            yield name, where, {k: s[name] for k, s in sums.items()}


def gains(metric: str, after: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    """By domain how much better ``after`` is; a loss that falls is a gain."""
    sign = -1 if metric == LOSS else 1
    return {domain: sign * (value - before[domain]) for domain, value in after.items()}


def _falls(metric: str, measure: str) -> bool:
    """Whether less is better."""
    return metric == LOSS and measure in ("value", OBJECTIVE, BEYOND)


def _stderrs(comparison: pd.DataFrame) -> Scores:
    """Standard errors of ln(loss / base's), paired by row."""
    losses = comparison[comparison["metric"] == LOSS]  # accuracies may fall below 0: no logarithm
    errors = change_stderrs(losses, "change_low", "change_high")
    return scores(losses.assign(change_stderr=errors), LOSS, "change_stderr")


def _mean(values: Mapping[str, float]) -> float:
    return math.fsum(values.values()) / len(values)


def _both(values: Series, strategy: str, baseline: str) -> list[Draw]:
    """The draws that both have."""
    return [s for name, s in values if name == strategy and (baseline, s) in values]


def _paired(
    values: Series, strategy: str, baseline: str, lower_is_better: bool, row_stderr: float
) -> dict[str, Any] | None:
    both = sorted(_both(values, strategy, baseline), key=in_order)
    if not both:
        return None
    bases = [base_of(s) for s in both]
    mine, theirs = (np.array([values[name, s] for s in both]) for name in (strategy, baseline))
    value, stderr, df = crossed_stderr(mine, 0.0, bases)
    # A level that is the same in all seeds is known as it is, unlike a difference.
    low, high = _interval(value, 0.0 if math.isinf(stderr) else stderr, df, len(both))
    row: dict[str, Any] = {"strategy": strategy, "baseline": baseline, "value": value}
    row |= {"value_low": low, "value_high": high}
    if strategy == baseline:
        return row | {"n_seeds": len(both), "n_bases": len(set(bases))}
    return row | difference_row(mine - theirs, lower_is_better, row_stderr, bases)


def difference_row(
    differences: Array,
    lower_is_better: bool,
    row_stderr: float = 0.0,
    bases: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Mean of paired differences, shape (seeds,), its interval, p and the verdict.

    They follow the t-interval over seeds and rows (``row_stderr``: the error that the draw of rows
    gives to the mean) and, where ``bases`` (of each difference) are several, over base models; from
    :data:`MIN_SEEDS` on; below, NaN and None. Seeds that all agree give no interval when single
    rows are not known.
    """
    mean, stderr, df = crossed_stderr(differences, row_stderr, bases)
    enough = len(differences) >= MIN_SEEDS
    low, high = _interval(mean, stderr, df, len(differences))
    bad_end = high if lower_is_better else -low
    return {
        "difference": mean,
        "low": low,
        "high": high,
        "n_seeds": len(differences),
        "n_bases": len(set(bases or [""])),
        "p_value": t_p_value(mean, stderr, df) if enough else math.nan,
        "not_worse_by": max(0.0, bad_end) if not math.isnan(bad_end) else math.nan,
        "verdict": verdict(low, high, lower_is_better=lower_is_better) if enough else None,
    }


def _interval(mean: float, stderr: float, df: int, n: int) -> tuple[float, float]:
    """Of a mean over ``n`` seeds with ``df`` degrees of freedom; NaN below MIN_SEEDS."""
    return t_interval(mean, stderr, df + 1) if n >= MIN_SEEDS else (math.nan, math.nan)


def _relative_gains(
    metric: str,
    levels: Series,
    strategies: Sequence[str],
    baseline: str,
    in_points: bool,
    draws: RowErrors | None,
    counts: Mapping[str, float] | None,
) -> Iterator[dict[str, Any]]:
    """``levels``: what is compared; a falling loss is a gain. ``in_points``: gains are differences,
    since the levels are relative gaps already. ``counts``: how much each domain counts; None alike.
    """
    sign = -1 if metric == LOSS else 1
    for strategy in strategies:
        both = _both(levels, strategy, baseline)
        seeds = [s for s in both if in_points or levels[baseline, s] > 0]
        if strategy == baseline or not seeds:
            continue
        bases = [base_of(s) for s in seeds]
        mine, theirs = (np.array([levels[name, s] for s in seeds]) for name in (strategy, baseline))
        each = sign * (mine - theirs if in_points else relative_gains(mine, theirs))
        error = (draws.mean(metric, strategy, baseline, counts) if draws else 0) / theirs.mean()
        row = difference_row(each, lower_is_better=False, row_stderr=error, bases=bases)
        ends = {"value": row["difference"], "value_low": row["low"], "value_high": row["high"]}
        about = {"metric": metric, "measure": "relative_gain", "domain": ALL}
        yield {**about, "strategy": strategy, "baseline": baseline, **row, **ends}


def _less_degradation(
    metric: str, others: Series, strategies: Sequence[str], baseline: str
) -> Iterator[dict[str, Any]]:
    """``others``: the sum of the changes of the other domains."""
    for strategy in strategies:
        seeds = _both(others, strategy, baseline)
        if strategy == baseline or not seeds:
            continue
        bases = [base_of(s) for s in seeds]
        mine, theirs = (
            base_means([others[name, s] for s in seeds], bases) for name in (strategy, baseline)
        )
        value = less_degradation(float(mine.mean()), float(theirs.mean()))
        low, high = math.nan, math.nan
        if len(mine) >= MIN_SEEDS and not math.isnan(value):
            low, high = ratio_interval(mine, theirs)
        yield {
            "metric": metric,
            "measure": "less_degradation",
            "domain": ALL,
            "strategy": strategy,
            "baseline": baseline,
            "value": value,
            "value_low": 1 - high,
            "value_high": 1 - low,
            "n_seeds": len(seeds),
            "n_bases": len(set(bases)),
        }
