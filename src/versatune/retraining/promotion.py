"""The promotion rule: pure functions of two models' results on the same rows and items.

A change is positive when the challenger is better. Because both models answer the same rows, the
error of a change is that of the paired differences, far smaller than that of either model.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel
from scipy.special import ndtri, stdtrit

from versatune.intervals import Array, bonett_price, relative_change
from versatune.mixing.config import Kind, ObjectiveParams
from versatune.retraining.config import Metric, PromotionParams


class Change(BaseModel, frozen=True, extra="forbid"):
    """The change of a metric of a domain (or of the mean of all) from champion to challenger."""

    metric: Metric
    domain: str
    value: float
    """Part of the champion's loss, or points of accuracy (0 to 1)."""
    low: float
    high: float
    """The 95 % interval."""
    stderr: float
    n: int
    """Rows or items."""
    champion: float
    challenger: float
    """Each model's nats a supervised token, or accuracy."""


class PromotionVerdict(BaseModel, frozen=True, extra="forbid"):
    """The rule's decision, and why: a sentence for each reason."""

    promote: bool
    mean: dict[Metric, Change]
    reasons: list[str]


def loss_change(
    domain: str, champion: Array, challenger: Array, tokens: Array | None = None
) -> Change:
    """1 - sum(challenger) / sum(champion): the relative reduction of the champion's loss.

    ``champion``, ``challenger``: summed loss of each row, shape (n,), the same rows; ``tokens``:
    how many supervised ones each has (None: one). The interval
    is :func:`versatune.intervals.relative_change`'s, as in the report, and unbounded where it is
    unknown (n < 2). A challenger whose loss is not finite falls without bound. Raises
    ValueError on different shapes, no rows, or a champion's loss that is not finite and above 0.
    """
    _same(champion, challenger)
    tokens = np.ones_like(champion) if tokens is None else tokens
    _same(champion, tokens)
    total, n, size = float(champion.sum()), len(champion), float(tokens.sum())
    if not (math.isfinite(total) and total > 0):
        raise ValueError(f"the champion's loss on {domain!r} is {total}")
    if not np.isfinite(challenger).all():
        return _lost("heldout_loss", domain, n, total / size, math.inf)
    _, low, high, stderr = relative_change(champion, challenger)
    known = math.isfinite(stderr)
    return Change(
        metric="heldout_loss", domain=domain, value=1 - float(challenger.sum()) / total,
        low=-high if known else -math.inf, high=-low if known else math.inf,
        stderr=stderr if known else math.inf, n=n,
        champion=total / size, challenger=float(challenger.sum()) / size,
    )  # fmt: skip


def accuracy_change(domain: str, champion: Array, challenger: Array) -> Change:
    """Accuracy of the challenger minus the champion's; both (n,) of 0 and 1, the same items.

    The interval is :func:`versatune.intervals.bonett_price`'s, which does not shrink to
    nothing when the models agree on a few items. Raises ValueError on different shapes, no items,
    and values other than 0 and 1.
    """
    low, high, stderr = bonett_price(champion, challenger)
    return Change(
        metric="accuracy", domain=domain, value=float((challenger - champion).mean()),
        low=low, high=high, stderr=stderr, n=len(champion),
        champion=float(champion.mean()), challenger=float(challenger.mean()),
    )  # fmt: skip


def mean_change(
    changes: Sequence[Change],
    weights: Mapping[str, float] | None = None,
    *,
    of_levels: bool = False,
) -> Change:
    """The mean of one metric's changes over the domains, with equal weights.

    ``weights``: how much each domain counts instead, c_j, normalised here. ``of_levels``: the
    change of the mean of losses, 1 - sum(c_j l'_j) / sum(c_j l_j), and not the mean of the changes
    1 - l'_j / l_j: the parts that domains have in it are c_j l_j / sum(c_i l_i). stderr =
    sqrt(sum (p_j se_j)^2) with these parts or the c_j; Student's interval with Welch and
    Satterthwaite's degrees of freedom. Raises ValueError on no changes, on changes of two metrics,
    and on weights that lack a domain or are all 0.
    """
    metrics = {change.metric for change in changes}
    if len(metrics) != 1:
        raise ValueError(f"one metric is needed, these are {sorted(metrics)}")
    shares = _shares(changes, weights)
    changes = [change for change, share in zip(changes, shares, strict=True) if share > 0]
    shares, n = shares[shares > 0], sum(change.n for change in changes)
    champion = float(shares @ [change.champion for change in changes])
    challenger = float(shares @ [change.challenger for change in changes])
    if not all(math.isfinite(change.value) for change in changes):
        return _lost(metrics.pop(), "mean", n, champion, challenger)
    if of_levels:
        shares = shares * [change.champion for change in changes] / champion
    variances = np.array([change.stderr**2 for change in changes]) * shares**2
    value, stderr = float(shares @ [c.value for c in changes]), math.sqrt(variances.sum())
    freedom = math.inf
    if 0 < variances.sum() < math.inf:
        parts = variances / variances.sum()
        terms = [p**2 / max(c.n - 1, 1) for p, c in zip(parts, changes, strict=True)]
        freedom = float(1 / sum(terms))
    half = _half_width(stderr, freedom)
    return Change(
        metric=metrics.pop(), domain="mean", value=value, low=value - half, high=value + half,
        stderr=stderr, n=n, champion=champion, challenger=challenger,
    )  # fmt: skip


def _shares(changes: Sequence[Change], weights: Mapping[str, float] | None) -> Array:
    if weights is None:
        return np.full(len(changes), 1 / len(changes))
    given = np.array([weights.get(change.domain, math.nan) for change in changes])
    if not (np.isfinite(given).all() and given.sum() > 0):
        raise ValueError(f"weights {dict(weights)} for {[change.domain for change in changes]}")
    result: Array = given / given.sum()
    return result


def judge(
    changes: Sequence[Change], rule: PromotionParams, objective: ObjectiveParams | None = None
) -> PromotionVerdict:
    """Promote when the mean improves and no domain falls by more than its tolerance.

    ``objective``: what the held-out losses' mean is. The change of the mean loss itself for kind
    ``mean``, by its weights for ``weighted``; for ``relative``, and without one, the mean of the
    losses as parts of the champion's. For accuracies every domain counts alike. Every condition
    must hold, so many conditions at 95 % each do not make a wrong promotion more likely. Raises
    ValueError when ``rule.improve`` was not measured.
    """
    by_metric: dict[Metric, list[Change]] = {}
    for change in changes:
        by_metric.setdefault(change.metric, []).append(change)
    if rule.improve not in by_metric:
        raise ValueError(f"{rule.improve} was not measured")
    weights = None if objective is None else objective.weights
    in_levels = objective is not None and objective.kind in ("mean", "weighted")
    mean = {
        metric: mean_change(of, weights, of_levels=in_levels)
        if metric == "heldout_loss"
        else mean_change(of)
        for metric, of in by_metric.items()
    }
    target = mean[rule.improve]
    better = (target.low if rule.evidence == "interval" else target.value) > 0
    kind = objective.kind if objective and rule.improve == "heldout_loss" else "mean"
    reasons = [_tell_mean(target, better, kind)]
    falls = []
    for metric, limit in rule.limits.items():
        for change in by_metric.get(metric, []):
            allowed = limit.domains.get(change.domain, limit.tolerance)
            certain = limit.evidence == "interval"
            if (change.low if certain else change.value) < -allowed:
                falls.append(_tell_fall(change, allowed))
    reasons += falls or ["no domain falls by more than its tolerance"]
    return PromotionVerdict(promote=better and not falls, mean=mean, reasons=reasons)


def measured(results: Mapping[tuple[str, Metric], tuple[Array, ...]]) -> list[Change]:
    """The changes of all domains and metrics from ``(champion, challenger, weights)`` by row.

    Weights of held-out rows are their supervised tokens.
    """
    return [
        loss_change(domain, champion, challenger, weights)
        if metric == "heldout_loss"
        else accuracy_change(domain, champion, challenger)
        for (domain, metric), (champion, challenger, weights) in results.items()
    ]


def _tell_mean(change: Change, better: bool, kind: Kind) -> str:
    doubt = "" if better or change.value <= 0 else ", which is not certain"
    weighted = "weighted " if kind == "weighted" else ""
    part = " as a part of the champion's" if kind == "relative" else ""
    return f"{weighted}mean {_name(change)}{part}: {_words(change)}{doubt}"


def _tell_fall(change: Change, allowed: float) -> str:
    certain = change.value < -allowed
    what = "falls by more than" if certain else "may fall by more than"
    return f"{change.domain} {what} {_number(change, allowed)}: {_name(change)} {_words(change)}"


def _name(change: Change) -> str:
    return "held-out loss" if change.metric == "heldout_loss" else change.metric


def _words(change: Change) -> str:
    if not math.isfinite(change.value):
        return "not finite"
    direction = "better" if change.value > 0 else "worse" if change.value < 0 else "changed"
    by = f"{direction} by {_number(change, abs(change.value))}"
    if not (math.isfinite(change.low) and math.isfinite(change.high)):
        return f"{by} (too few rows for an interval)"
    low, high = (_number(change, end) for end in (change.low, change.high))
    return f"{by} (95 %: {low} to {high})"


def _number(change: Change, value: float) -> str:
    unit = " points" if change.metric == "accuracy" else " %"
    return f"{100 * value:.2f}{unit}" if math.isfinite(value) else f"{value}"


def _lost(metric: Metric, domain: str, n: int, champion: float, challenger: float) -> Change:
    worst = -math.inf
    return Change(
        metric=metric, domain=domain, value=worst, low=worst, high=worst, stderr=math.inf, n=n,
        champion=champion, challenger=challenger,
    )  # fmt: skip


def _half_width(stderr: float, freedom: float) -> float:
    """Half of a 95 % interval; infinite where the spread is unknown."""
    if freedom < 1 or not math.isfinite(stderr):
        return math.inf
    quantile = ndtri(0.975) if math.isinf(freedom) else stdtrit(freedom, 0.975)
    return float(quantile) * stderr


def _same(champion: Array, challenger: Array) -> None:
    if champion.shape != challenger.shape or champion.ndim != 1 or not len(champion):
        raise ValueError(f"shapes {champion.shape} and {challenger.shape}: the same rows needed")
