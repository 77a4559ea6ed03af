"""A mixing law: how each domain's held-out loss follows from what was trained on.

With x_i the share of domain i, eta the learning rate over its peak, and sums over the steps so far:

    A_i = sum of eta x_i            its own rows, repeated ones by their worth
    F_i = sum of eta (1 - x_i)      the others' rows
    w_i = (1 + nu F_i)^(-1/2) + alpha A_i + beta F_i
    L_i = (e + (L_i(0) - e) w_i^-b) exp(tau eta)

w is the domain's exposure in units of what the base model knows of it. The first term is what is
left of that while other rows are trained on: it fades ever more slowly, and a domain whose rows are
seen too comes back. alpha is what own rows teach, beta what the others' do. For a domain that the
base does not know (alpha large) L falls as a power of its tokens with floor e, as in scaling laws;
for one it knows, w is about linear in the domain's share, so that a small share keeps most of it.
tau is what a high learning rate adds for the time being: it raises losses at once and goes when the
rate is annealed (Tissue et al., arXiv 2408.11029), so a rise early in a training is not yet
forgetting. Rows seen again count less (:mod:`versatune.mixing.repeats`).

A domain's loss depends on its own share alone, what the others do being alike; so seven numbers a
domain can be told from few runs. They are fitted to all runs at hand (:class:`.traces.Trace`) with
weak priors; the law is the likeliest fit and :data:`DRAWS` others that could as well be true.

Arrays have shape (k,), or (n, k) for n draws.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple, Self

import numpy as np
from scipy.optimize import least_squares

from versatune.mixing.repeats import USUAL_REPEATS, Supply, worth, worth_by_log
from versatune.mixing.shares import Array
from versatune.mixing.traces import Trace

DRAWS = 96

PRIOR = {
    "alpha": (np.log(0.05), 2.5),
    "nu": (np.log(0.01), 2.0),
    "beta": (np.log(0.001), 1.5),
    "b": (np.log(0.3), 0.3),
    "floor": (-1.5, 1.2),
    "tau": (0.05, 0.1),
    "repeats": (np.log(USUAL_REPEATS), 1.0),
}
"""Means and standard deviations of ln alpha, ln nu, ln beta, ln b, the log odds of the floor's part
of the least loss measured, tau, and ln R*. alpha, nu and beta are per step at the peak rate. What
they are was chosen in three worlds that no table uses."""

_MEAN = np.array([mean for mean, _ in PRIOR.values()])
_SPREAD = np.array([spread for _, spread in PRIOR.values()])
_STARTS = np.array([[-2.0, 2.0] + 5 * [0.0], 7 * [0.0], [1.5, -2.0] + 5 * [0.0]])
_LOW = np.array([-14.0, -14.0, -14.0, -3.0, -8.0, -1.0, -2.0])
_HIGH = np.array([6.0, 6.0, 6.0, 3.0, 8.0, 1.0, 5.0])

ALIKE, DOMAINS, POOLINGS = 0.25, 4.0, 4
"""How far domains usually differ, in parts of the spreads of :data:`PRIOR`; how many domains this
counts as, where those at hand say otherwise; how often the fit is repeated."""

SAME = 0.02
"""By so much the logarithm of a loss differs between trainings that are alike."""

COUNTED = 2.0
"""A trace of many points counts as so many: where the law is off, it is off all along."""


@dataclass(frozen=True)
class Exposure:
    """What was trained on so far."""

    own: Array
    """A, shape (n, k): repeated rows are worth something else in each draw."""
    others: Array
    """F, shape (k,)."""


@dataclass(frozen=True)
class Law:
    """Fitted numbers; ``numbers[0]`` is the likeliest."""

    numbers: Array
    """As in :data:`PRIOR`, shape (n, k, 7)."""
    base: Array
    """L(0)."""
    least: Array
    """The least loss measured, below which the floor lies."""

    def start(self) -> Exposure:
        """Before training."""
        return Exposure(np.zeros(self.numbers.shape[:2]), np.zeros(self.base.size))

    def after(
        self, exposure: Exposure, weights: Array, learning: float, supply: Supply | None = None
    ) -> Exposure:
        """The exposure after ``learning`` on ``weights``; ``supply``: how often rows repeat."""
        fresh, _ = self._fresh(weights, supply)
        return Exposure(exposure.own + fresh * learning, exposure.others + (1 - weights) * learning)

    def losses(self, exposure: Exposure, rate: float = 0.0) -> Array:
        """Losses by draw, shape (n, k); ``rate``: learning rate over its peak at the time."""
        numbers = self._numbers
        course = _course(numbers, self.base, exposure.own, exposure.others)
        return course.loss * np.exp(numbers.tau * rate)

    def ends(
        self, weights: Array, learning: float, supply: Supply | None = None
    ) -> tuple[Array, Array]:
        """Losses after a training on one mix and d L_i / d x_i by draw, (n, k) each."""
        end = self.after(self.start(), weights, learning, supply)
        course = _course(self._numbers, self.base, end.own, end.others)
        by_share = self._fresh(weights, supply)[1]
        return course.loss, learning * (course.by_own * by_share - course.by_others)

    def likeliest(self) -> Self:
        """The likeliest law alone."""
        return replace(self, numbers=self.numbers[:1])

    def own_alone(self) -> Self:
        """As if other domains' rows taught a domain nothing (beta = 0)."""
        numbers = self.numbers.copy()
        numbers[:, :, 2] = _LOW[2]
        return replace(self, numbers=numbers)

    def _fresh(self, weights: Array, supply: Supply | None) -> tuple[Array, Array]:
        if supply is None:
            shape = self.numbers.shape[:2]
            return np.broadcast_to(weights, shape), np.ones(shape)
        return supply.fresh(weights, self._numbers.repeats)

    @property
    def _numbers(self) -> "_Numbers":
        return _Numbers.of(self.numbers, self.least)


class _Numbers(NamedTuple):
    """The numbers of :data:`PRIOR` as they stand in the formula."""

    alpha: Array
    nu: Array
    beta: Array
    b: Array
    floor: Array
    tau: Array
    repeats: Array

    @classmethod
    def of(cls, z: Array, least: Array | float) -> Self:
        """From ``z`` (..., 7); ``least``: the least loss measured."""
        z = np.clip(z, _LOW, _HIGH)
        alpha, nu, beta, b, _, _, repeats = np.exp(np.moveaxis(z, -1, 0))
        return cls(alpha, nu, beta, b, least / (1 + np.exp(-z[..., 4])), z[..., 5], repeats)


class _Course(NamedTuple):
    """Losses of annealed models, and what enters their derivatives."""

    loss: Array
    w: Array
    y: Array
    """loss - floor."""
    by_w: Array
    """d loss / d w."""
    by_own: Array
    """d loss / d A."""
    by_others: Array
    """d loss / d F."""


def _course(numbers: _Numbers, base: Array | float, own: Array, others: Array) -> _Course:
    """The law's formula but for the learning rate: after A ``own`` and F ``others``."""
    fades = 1 + numbers.nu * others
    w = fades**-0.5 + numbers.alpha * own + numbers.beta * others
    y = (base - numbers.floor) * w**-numbers.b
    by_w = -numbers.b * y / w
    by_others = by_w * (numbers.beta - 0.5 * numbers.nu * fades**-1.5)
    return _Course(numbers.floor + y, w, y, by_w, by_w * numbers.alpha, by_others)


def fit(traces: Sequence[Trace], base: Array, misfit: float = 0.3) -> Law:
    """The law by ``traces``, for a model whose losses are ``base`` (k,).

    Least squares in logarithms of losses over the base model's (a trace may be of other rows than
    ``base``). A measurement has its standard error, :data:`SAME`, and besides ``misfit``, a part of
    the change that was measured: where a loss moved far, the law is off by more.

    Domains are fitted together: what they have in common is told by all of them, and a domain
    differs from the others only as far as its own measurements say so (partial pooling, by
    expectation and maximisation): each is fitted with a normal prior that all share, then the
    prior's means and variances are estimated from the fits, and so on. :data:`PRIOR` is what is
    known of the means beforehand, :data:`ALIKE` of the spread.
    """
    k = base.size
    points = [_Points.of(traces, i) for i in range(k)]
    least = np.array([base[i] * min(p.least, 0.999) for i, p in enumerate(points)])
    common = _Common(_MEAN, _SPREAD)
    fits: list[_Fit] = []
    for _ in range(POOLINGS):
        fits = [
            _fitted(points[i], float(base[i]), float(least[i]), misfit, common, before)
            for i, before in enumerate(fits or [None] * k)
        ]
        common = common.after(fits)
    numbers = np.empty((1 + DRAWS, k, len(PRIOR)))
    rng = np.random.default_rng(0)
    for i, best in enumerate(fits):
        drawn = rng.multivariate_normal(
            best.numbers, best.covariance, size=DRAWS, method="cholesky"
        )
        numbers[:, i] = np.vstack([best.numbers, drawn])
    return Law(np.clip(numbers, _LOW, _HIGH), base, least)


class _Fit(NamedTuple):
    """A domain's numbers, shape (7,), and their covariance."""

    numbers: Array
    covariance: Array


class _Common(NamedTuple):
    """The normal distribution that the domains' numbers come from; shape (7,) each."""

    mean: Array
    spread: Array

    def after(self, fits: Sequence[_Fit]) -> Self:
        """The likelier one by ``fits``, which were made with this one.

        Its means have :data:`PRIOR`, its variances an inverse gamma prior whose scale is that of
        :data:`ALIKE` and which counts as :data:`DOMAINS` domains.
        """
        each = np.array([fit.numbers for fit in fits])
        errors = np.array([np.diag(fit.covariance) for fit in fits])
        known, told = 1 / _SPREAD**2, len(fits) / self.spread**2
        mean = (known * _MEAN + told * each.mean(0)) / (known + told)
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
    others = points.summed((1 - points.shares) * points.learning)
    known = ~np.isnan(points.change)
    error = points.error[known] ** 2 + SAME**2 + (misfit * points.change[known]) ** 2
    weight = np.sqrt(points.counts[known] / error)

    amount = points.shares * points.learning
    per_pass = amount / np.where(repeats, seen, 1.0)

    def own(f: Callable[[Array, Array], Array], r: Array, fresh: Array | float) -> Array:
        """A by what ``f`` says of passes; ``fresh`` where none are known."""
        made = f(points.after, r) - f(points.before, r)
        return points.summed(np.where(repeats, per_pass * made, fresh))

    def told(z: Array) -> tuple[Array, Array]:
        """Logarithms of losses over the base model's, and their derivatives by z (m, 7)."""
        numbers = _Numbers.of(z, least)
        learnt = own(worth, numbers.repeats, amount)
        course = _course(numbers, base, learnt, others)
        part = numbers.floor / least
        taught = course.by_w * numbers.beta * others
        slopes = (
            course.by_own * learnt,
            course.by_others * others - taught,
            taught,
            -np.log(course.w) * numbers.b * course.y,
            (1 - course.w**-numbers.b) * numbers.floor * (1 - part),
            points.rate * course.loss,
            course.by_own * own(worth_by_log, numbers.repeats, 0.0),
        )
        losses = np.log(course.loss / base) + numbers.tau * points.rate
        return losses, np.stack(slopes, axis=1) / course.loss[:, None]

    def off(z: Array) -> Array:
        away = (told(z)[0] - points.change)[known] * weight
        return np.concatenate([away, (z - common.mean) / common.spread])

    def slope(z: Array) -> Array:
        return np.vstack([told(z)[1][known] * weight[:, None], np.diag(1 / common.spread)])

    starts = [_MEAN + away for away in _STARTS] if before is None else [before.numbers]
    fits = [least_squares(off, start, slope, max_nfev=100) for start in starts]
    best = min(fits, key=lambda one: one.cost)
    return _Fit(best.x, np.linalg.inv(best.jac.T @ best.jac))
