"""A mixing law (:mod:`versatune.mixing.law`) from what short runs and a training did.

The eight numbers of each domain are fitted to all runs at hand (:class:`.traces.Trace`), and the
domains together (partial pooling, by expectation and maximisation): all domains tell what they have
in common, and only its own measurements make a domain differ. Each is fitted with a normal prior
that all share, then the prior's means and variances are estimated from the fits, and so on.
:data:`.law.PRIOR` is what is known of the means beforehand, :data:`ALIKE` of the spread.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple, Self

import numpy as np
from scipy.optimize import least_squares

from versatune.mixing.law import (
    BY_LEARNING,
    DRAWS,
    HIGH,
    LOW,
    PRIOR,
    Course,
    Law,
    Numbers,
    kept_part,
)
from versatune.mixing.repeats import worth, worth_by_log
from versatune.mixing.shares import Array
from versatune.mixing.traces import Trace

_MEAN = np.array([mean for mean, _ in PRIOR.values()])
_SPREAD = np.array([spread for _, spread in PRIOR.values()])
_STARTS = np.array([[-2.0, 2.0] + 6 * [0.0], 8 * [0.0], [1.5, -2.0] + 6 * [0.0]])

ALIKE, DOMAINS, POOLINGS = 0.5, 4.0, 4
"""How far domains usually differ, in parts of the spreads of :data:`PRIOR`; how many domains this
counts as, where those at hand say otherwise; how often the fit is repeated."""

SAME = 0.02
"""By so much the logarithm of a loss differs between trainings that are alike."""

COUNTED = 2.0
"""A trace of many points counts as so many: where the law is off, it is off all along."""


def fit(
    traces: Sequence[Trace], base: Array, misfit: float = 0.3, learning: float | None = None
) -> Law:
    """The law by ``traces``, for a model whose losses are ``base`` (k,).

    ``learning``: the amount of the training that is forecast, which :data:`.law.PRIOR` is of; None:
    that of the longest trace.

    Least squares in logarithms of losses over the base model's (a trace may be of other rows than
    ``base``). A measurement has its standard error, :data:`SAME`, and besides ``misfit``, a part of
    the change that was measured: where a loss moved far, the law is off by more.
    """
    k = base.size
    points = [_Points.of(traces, i) for i in range(k)]
    least = np.array([base[i] * min(p.least, 0.999) for i, p in enumerate(points)])
    whole = learning or max([1e-9, *(float(trace.learning.sum()) for trace in traces)])
    known = _MEAN - BY_LEARNING * np.log(whole)
    common = _Common(known, _SPREAD)
    fits: list[_Fit] = []
    for _ in range(POOLINGS):
        fits = [
            _fitted(points[i], float(base[i]), float(least[i]), misfit, common, before)
            for i, before in enumerate(fits or [None] * k)
        ]
        common = common.after(fits, known)
    numbers = np.empty((1 + DRAWS, k, len(PRIOR)))
    rng = np.random.default_rng(0)
    for i, best in enumerate(fits):
        drawn = rng.multivariate_normal(
            best.numbers, best.covariance, size=DRAWS, method="cholesky"
        )
        numbers[:, i] = np.vstack([best.numbers, drawn])
    return Law(np.clip(numbers, LOW, HIGH), base, least)


class _Fit(NamedTuple):
    """A domain's numbers, shape (8,), and their covariance."""

    numbers: Array
    covariance: Array


class _Common(NamedTuple):
    """The normal distribution that the domains' numbers come from; shape (8,) each."""

    mean: Array
    spread: Array

    def after(self, fits: Sequence[_Fit], known: Array) -> Self:
        """The likelier one by ``fits``, which were made with this one.

        Its means have the prior ``known`` (8,) with :data:`.law.PRIOR`'s spreads, its variances an
        inverse gamma prior whose scale is that of :data:`ALIKE` and which counts as :data:`DOMAINS`
        domains.
        """
        each = np.array([fit.numbers for fit in fits])
        errors = np.array([np.diag(fit.covariance) for fit in fits])
        sure, told = 1 / _SPREAD**2, len(fits) / self.spread**2
        mean = (sure * known + told * each.mean(0)) / (sure + told)
        usual = DOMAINS * (ALIKE * _SPREAD) ** 2
        spread = (((each - mean) ** 2 + errors).sum(0) + usual) / (len(fits) + DOMAINS)
        return type(self)(mean, np.minimum(np.sqrt(spread), _SPREAD))


@dataclass(frozen=True)
class _Points:
    """All stretches of all traces, one after another, as domain i sees them; shape (m,)."""

    shares: Array
    learning: Array
    before: Array
    """Passes at the start of the stretch."""
    after: Array
    first: Array
    """Where the stretch's trace begins."""
    rate: Array
    change: Array
    """ln(loss / base model's) at the stretch's end; NaN where it was not measured."""
    error: Array
    counts: Array
    """What a measurement counts."""

    @classmethod
    def of(cls, traces: Sequence[Trace], i: int) -> Self:
        begun = np.cumsum([0, *(trace.learning.size for trace in traces)])
        found = [cls._of_one(trace, i, n) for trace, n in zip(traces, begun[:-1], strict=True)]
        return cls(*(np.concatenate([getattr(p, f.name) for p in found]) for f in fields(cls)))

    @classmethod
    def _of_one(cls, trace: Trace, i: int, begun: int) -> Self:
        change = np.log(trace.losses[1:, i] / trace.losses[0, i])
        measured = max(int((~np.isnan(change)).sum()), 1)
        return cls(
            shares=trace.weights[:, i],
            learning=trace.learning,
            before=trace.passes[:-1, i],
            after=trace.passes[1:, i],
            first=np.full(change.size, begun),
            rate=trace.rate,
            change=change,
            error=trace.stderrs[1:, i],
            counts=np.full(change.size, min(1.0, COUNTED / measured)),
        )

    @property
    def least(self) -> float:
        """The least loss, in parts of the base model's."""
        return float(np.exp(np.nanmin(np.append(self.change, 0.0))))

    def summed(self, each: Array) -> Array:
        """``each`` (m,) summed from the beginning of its trace."""
        total = np.append(0.0, np.cumsum(each))
        result: Array = total[1:] - total[self.first]
        return result


def _fitted(
    points: _Points,
    base: float,
    least: float,
    misfit: float,
    common: _Common,
    before: _Fit | None,
) -> _Fit:
    """One domain's fit with the prior ``common``; it begins at the fit ``before``."""
    seen = points.after - points.before
    repeats = seen > 0
    other = (1 - points.shares) * points.learning
    others = points.summed(other)
    since = others[:, None] - others
    earlier = (points.first[:, None] == points.first) & np.tri(since.shape[0], dtype=bool)
    known = ~np.isnan(points.change)
    error = points.error[known] ** 2 + SAME**2 + (misfit * points.change[known]) ** 2
    weight = np.sqrt(points.counts[known] / error)

    amount = points.shares * points.learning
    per_pass = amount / np.where(repeats, seen, 1.0)

    def own(f: Callable[[Array, Array], Array], r: Array, fresh: Array | float) -> Array:
        """What each stretch adds to A by what ``f`` says of passes; ``fresh`` where none are
        known."""
        made = f(points.after, r) - f(points.before, r)
        return np.where(repeats, per_pass * made, fresh)

    def told(z: Array) -> tuple[Array, Array]:
        """Logarithms of losses over the base model's, and their derivatives by z (m, 8)."""
        numbers = Numbers.of(z, least)
        kept, by_fading = kept_part(numbers.fade * other)
        left = np.where(earlier, np.exp(-numbers.fade * np.where(earlier, since, 0.0)), 0.0)
        each = own(worth, numbers.repeats, amount)
        learnt = left @ (each * kept)
        faded = left @ (each * by_fading * other) - (left * since) @ (each * kept)
        course = Course.of(numbers, base, learnt, others)
        part = numbers.floor / least
        taught = course.by_w * numbers.beta * others
        slopes = (
            course.by_own * learnt,
            course.by_others * others - taught,
            taught,
            -np.log(course.w) * numbers.b * course.y,
            (1 - course.w**-numbers.b) * numbers.floor * (1 - part),
            points.rate * course.loss,
            course.by_own * (left @ (own(worth_by_log, numbers.repeats, 0.0) * kept)),
            course.by_own * faded * numbers.fade,
        )
        losses = np.log(course.loss / base) + numbers.tau * points.rate
        return losses, np.stack(slopes, axis=1) / course.loss[:, None]

    def off(z: Array) -> Array:
        away = (told(z)[0] - points.change)[known] * weight
        return np.concatenate([away, (z - common.mean) / common.spread])

    def slope(z: Array) -> Array:
        return np.vstack([told(z)[1][known] * weight[:, None], np.diag(1 / common.spread)])

    starts = [common.mean + away for away in _STARTS] if before is None else [before.numbers]
    fits = [least_squares(off, start, slope, max_nfev=100) for start in starts]
    best = min(fits, key=lambda one: one.cost)
    return _Fit(best.x, np.linalg.inv(best.jac.T @ best.jac))
