"""The best shares by a mixing law, as far as it can be trusted.

With F(x) the objective that is expected for shares x kept to the end, over the laws that could be
true; q the shares to stay at when nothing is known, and V the variances of F's gradient over them:

    minimise  F(x) + caution sqrt(sum of V_i (x_i - q_i)^2)     over shares within their bounds

The expectation is what makes a choice good on average: a mix that only the likeliest law likes
costs much under the others. The second term is the standard error of F(x) - F(q). With ``caution``
1 no share leaves q unless the expected gain exceeds the standard error of that gain, and without
signal the answer is q itself. Constraints c_j(x) <= 0 (a domain's forecast loss, with its standard
error, against its limit) enter by the method of multipliers. Solved by entropic mirror descent.
Where no shares meet the limits, :func:`protective_shares` come as near to them as they can.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from versatune.mixing.law import Law
from versatune.mixing.repeats import Supply
from versatune.mixing.shares import Array, bounded_shares

Objective = Callable[[Array], tuple[Array, Array]]
"""Losses (n, k) to n numbers and their gradients (n, k)."""

HIGHEST = 3.0
"""The highest end of a training, in parts of the base model's loss. Drawn laws can say more."""


MET = 0.005
"""A limit missed by less than this part of itself counts as met: so exact is the search."""

SECOND = 1e-3
"""The objective's weight, as a part of its value, beside squared relative violations: they are
first brought down, and only among shares that differ little in them does the objective choose."""


@dataclass(frozen=True)
class Bounds:
    """Where shares may lie."""

    floor: float | tuple[float, ...] = 0.0
    """Of all shares, or each one's; so is ``cap``."""
    cap: float | tuple[float, ...] = 1.0
    targets: tuple[int, ...] = ()
    """Domains whose shares together lie between ``least`` and ``most``."""
    least: float = 0.0
    most: float = 1.0
    parts: tuple[float, ...] = ()
    """What each domain has at least of what the targets leave; no more than an equal part."""

    def keep(self, weights: Array) -> Array:
        """``weights`` brought within the bounds, ratios kept where they can be."""
        if not self.targets:
            return bounded_shares(weights, self.floor, self.cap)
        chosen = np.zeros(weights.size, dtype=bool)
        chosen[list(self.targets)] = True
        total = float(np.clip(weights[chosen].sum(), self.least, self.most))
        if chosen.all():
            total = 1.0
        floors = np.broadcast_to(self.floor, weights.shape)
        caps = np.broadcast_to(self.cap, weights.shape)
        result = np.empty_like(weights)
        for part, size in ((chosen, total), (~chosen, 1 - total)):
            if not part.any():
                continue
            if size <= 0:
                result[part] = 0.0
                continue
            inside = np.maximum(weights[part], 1e-12)
            floor = np.minimum(floors[part], size / part.sum()) / size
            if part is not chosen and self.parts:
                floor = np.maximum(floor, np.array(self.parts)[part])
            cap = 1.0 if part is chosen else np.clip(caps[part] / size, 1.0 / part.sum(), 1.0)
            shares = bounded_shares(inside / inside.sum(), floor, np.maximum(cap, floor))
            result[part] = size * shares
        return result


@dataclass(frozen=True)
class Outlook:
    """What is known when shares are chosen; arrays have shape (k,)."""

    law: Law
    learning: float
    """The learning amount of the training."""
    objective: Objective
    anchor: Array
    """q."""
    caution: float
    limits: Array | None = None
    """Highest losses at the end, inf where there is none."""
    caution_limits: float = 0.0
    """Standard errors of the forecast by which it stays below the limits."""
    supply: Supply | None = None
    """How often rows will be repeated; None: never."""

    def forecast(self, weights: Array) -> tuple[Array, Array]:
        """Losses at the end for ``weights``, and each one's derivative by its own share."""
        losses, slopes = self._ends(self.law.likeliest(), weights)
        return losses[0], slopes[0]

    def expected(self, weights: Array) -> tuple[float, Array]:
        """The objective for ``weights`` and its derivatives by shares, on average over the law's
        draws."""
        ends, slopes = self._drawn(weights)
        highest = HIGHEST * self.law.base
        values, inner = self.objective(np.minimum(ends, highest))
        by_share = np.where(ends < highest, inner * slopes, 0.0)
        return float(np.mean(values)), by_share.mean(0)

    def ends(self, weights: Array) -> Array:
        """Losses at the end by draw of the law, (n, k), as far as trainings go."""
        return np.minimum(self._drawn(weights)[0], HIGHEST * self.law.base)

    def errors(self, weights: Array) -> Array:
        """Standard errors of the forecast losses, shape (k,), by the law's uncertainty."""
        result: Array = self._drawn(weights)[0].std(0)
        return result

    def gradient_variance(self) -> Array:
        """V: of the objective's gradient by shares, at the anchor; domains err independently."""
        inner = self.objective(self.forecast(self.anchor)[0])[1]
        result: Array = (inner * self._drawn(self.anchor)[1]).var(0)
        return result

    def cautious(self, weights: Array) -> tuple[Array, Array]:
        """Forecast losses and ``caution_limits`` of their errors, and the derivatives by shares.

        The errors' own derivatives count: they grow so fast where shares are small that shares
        chosen by errors taken elsewhere run from domain to domain.
        """
        ends, slopes = self.forecast(weights)
        if self.caution_limits == 0:
            return ends, slopes
        drawn, drawn_slopes = self._drawn(weights)
        errors = np.maximum(drawn.std(0), 1e-9)
        away = drawn - drawn.mean(0)
        by_share = (away * (drawn_slopes - drawn_slopes.mean(0))).mean(0) / errors
        return ends + self.caution_limits * errors, slopes + self.caution_limits * by_share

    def meets_limits(self, weights: Array) -> bool:
        """Whether each forecast is below its limit by ``caution_limits``, but for :data:`MET`."""
        if self.limits is None:
            return True
        return bool((self.cautious(weights)[0] <= self.limits + MET * self.law.base).all())

    def _drawn(self, weights: Array) -> tuple[Array, Array]:
        return self._ends(self.law, weights)

    def _ends(self, law: Law, weights: Array) -> tuple[Array, Array]:
        return law.ends(weights, self.learning, self.supply)


def best_shares(outlook: Outlook, bounds: Bounds, begin: Array | None = None) -> Array:
    """The minimiser described above, shape (k,); the anchor itself when nothing beats it.

    ``begin``: where the search within limits starts; the anchor if None.
    """
    start = bounds.keep(outlook.anchor)
    spread = outlook.gradient_variance() * outlook.caution**2
    tiny = 1e-6 * max(float(np.sqrt(spread.sum())), 1e-9)
    limits = np.full(start.size, np.inf) if outlook.limits is None else outlook.limits
    bound = np.isfinite(limits)

    def doubt(x: Array) -> tuple[float, Array]:
        away = x - start
        size = float(np.sqrt(spread @ away**2 + tiny**2))
        return size - tiny, spread * away / size

    if not bound.any():
        x = _descend(lambda v: _sum(outlook.expected(v), doubt(v)), start, bounds, 300)
        # The kink of the standard error at the anchor is rounded off for the descent: what it wins
        # there is nothing.
        gain = outlook.expected(start)[0] - outlook.expected(x)[0]
        return x if gain > float(np.sqrt(spread @ (x - start) ** 2)) else start
    first = start if begin is None else bounds.keep(begin)
    return _by_multipliers(outlook, bounds, limits, doubt, first)


def protective_shares(outlook: Outlook, bounds: Bounds) -> Array:
    """The shares for limits that can't all be met, shape (k,): the least violation of them.

    Minimises the sum over domains of the squared part by which a forecast is above its limit, and
    beside it, with a small weight, the objective. Only its own rows count as teaching a domain:
    that others' rows teach it is what few rounds tell least, and by it one domain could get all
    the shares for the others' sake. So a domain gets what brings it to its limit and no more. The
    standard errors are those at the anchor: chosen by them too, shares would go to the rows whose
    effects are known best, and those are often the targets'.
    """
    known = replace(outlook, law=outlook.law.own_alone())
    start = bounds.keep(outlook.anchor)
    if outlook.limits is None:
        return start
    bound = np.isfinite(outlook.limits)
    limits = outlook.limits - outlook.caution_limits * outlook.errors(start)
    second = SECOND / max(abs(known.expected(start)[0]), 1e-9)

    def violation(v: Array) -> _Valued:
        losses, by_share = known.forecast(v)
        over = np.where(bound, np.maximum(losses - limits, 0.0) / outlook.law.base, 0.0)
        value, slope = known.expected(v)
        slope = by_share * (2 * over / outlook.law.base) + second * slope
        return float(over @ over) + second * value, slope

    return _descend(violation, start, bounds, 400)


_Doubt = Callable[[Array], tuple[float, Array]]


def _by_multipliers(
    outlook: Outlook, bounds: Bounds, limits: Array, doubt: _Doubt, start: Array
) -> Array:
    """The objective's minimiser within ``limits``, by the method of multipliers from ``start``."""
    bound = np.isfinite(limits)
    multipliers, x = np.zeros(start.size), start
    strength = _strength(outlook, start)
    for _ in range(12):

        def lagrangian(v: Array, mu: Array = multipliers) -> _Valued:
            highest, by_share = outlook.cautious(v)
            over = np.where(bound, np.maximum(highest - limits + mu / strength, 0.0), 0.0)
            value, slope = outlook.expected(v)
            penalty = strength / 2 * float(over @ over), strength * by_share * over
            return _sum(_sum((value, slope), penalty), doubt(v))

        x = _descend(lagrangian, x, bounds, 60)
        over = np.where(bound, outlook.cautious(x)[0] - limits, -np.inf)
        multipliers = np.where(bound, np.maximum(multipliers + strength * over, 0.0), 0.0)
    return x


_Valued = tuple[float, Array]


def _sum(one: _Valued, other: _Valued) -> _Valued:
    return one[0] + other[0], one[1] + other[1]


def _strength(outlook: Outlook, weights: Array) -> float:
    """Of the penalty: a limit missed by a hundredth of a loss costs as much as the objective's."""
    losses, _ = outlook.forecast(weights)
    inner = outlook.objective(losses)[1]
    return 20.0 * float(np.abs(inner).sum()) / float(losses.mean()) + 1e-9


def _descend(f: Callable[[Array], _Valued], start: Array, bounds: Bounds, steps: int) -> Array:
    """Entropic mirror descent with a step that adapts; the start when nothing is lower."""
    x, (value, slope) = start, f(start)
    step = 1.0 / max(float(np.ptp(slope)), 1e-12)
    for _ in range(steps):
        moved = bounds.keep(_shifted(x, -step * (slope - slope.min())))
        new, new_slope = f(moved)
        away = moved - x
        if float(np.abs(away).max()) < 1e-7:
            break
        near = float(np.sum(moved * np.log(np.maximum(moved, 1e-300) / np.maximum(x, 1e-300))))
        if new <= value + float(slope @ away) + near / step and new < value:
            x, value, slope, step = moved, new, new_slope, step * 1.6
        else:
            step /= 2.5
            if step * float(np.ptp(slope)) < 1e-6:
                break
    return x


def _shifted(x: Array, by: npt.NDArray[np.float64]) -> Array:
    raised = np.maximum(x, 1e-12) * np.exp(np.maximum(by, -30.0))
    result: Array = raised / raised.sum()
    return result
