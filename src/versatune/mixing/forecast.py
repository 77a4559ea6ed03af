"""What each domain is forecast to reach for a mix, and what the best mix can win at most.

From a mixing law (:mod:`versatune.mixing.law`): every draw of it is followed to the end of
training. Intervals are of 90 %.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from versatune.mixing.law import Law
from versatune.mixing.lookahead import HIGHEST, Bounds, Outlook, best_shares
from versatune.mixing.objective import POINTS, Objective
from versatune.mixing.repeats import Supply
from versatune.mixing.shares import Array

Path = Sequence[tuple[Array, float]]
"""Shares and the learning amount that is spent on them, one after another."""

INTERVAL = (0.05, 0.95)

LAWS = 33
"""Of so many draws the own best mixes are found: a search each."""

UNEXPLAINED = 0.12
"""How far a forecast may be off besides the law's uncertainty, as a part of itself: seeds differ,
and a law of eight numbers is not exact."""

WORTH = 0.01
"""A gain over equal shares below this is not worth steering for: seeds differ by as much."""


class Route(NamedTuple):
    """What a strategy trains on."""

    path: Path
    """Of the model that is kept."""
    weights: Array
    """The mean share of each domain over all steps that are trained, (k,)."""
    rate: float = 0.0
    """The learning rate over its peak where the path ends; 0: it is annealed."""


def static(weights: Array, learning: float) -> Route:
    """The route of one mix, kept for ``learning``."""
    return Route([(weights, learning)], weights)


class Noise(NamedTuple):
    """Standard errors of changes of ln(loss), paired by row, as runs before the training had them;
    shape (k,) each."""

    part: Array
    """As a part of the change."""
    least: Array
    """Of a change that is small."""

    def error(self, loss: Array, base: Array) -> Array:
        """That of ln(loss / base), shape (k,)."""
        return np.asarray(np.maximum(self.part * np.abs(np.log(loss / base)), self.least))


@dataclass(frozen=True)
class Headroom:
    """What the best static mix can gain over equal shares, in parts of the objective, or as a
    difference where :data:`.objective.POINTS` says so."""

    weights: Array
    """The mix that is expected to be best."""
    gain: float
    """What it gains, on average over what could be true."""
    low: float
    high: float
    unit: str = "%"

    @property
    def advice(self) -> str:
        """What to do about it."""
        gain, low, high = (round(100 * part, 1) + 0.0 for part in (self.gain, self.low, self.high))
        numbers = f"{gain:.1f} {self.unit} ({low:.1f} to {high:.1f}) over equal shares"
        numbers = numbers.replace("-", "−")
        if self.high < WORTH:
            return f"A mix can gain {numbers} at most: take uniform and skip the references."
        if self.low > WORTH:
            return f"A mix can gain {numbers}: take mixing_law."
        return (
            f"A mix can gain {numbers}, and whether it is worth steering is open: uniform is safe, "
            "mixing_law leaves it only where it expects to gain more than its standard error."
        )


class Simulation:
    """A training that goes as a law says, stretch by stretch."""

    def __init__(self, law: Law, learning: float, passes: Array | None) -> None:
        """``learning``: of the whole training. ``passes`` (k,): how many times it would go over
        each domain's rows at a share of 1, spent as learning is; None: no row is repeated."""
        self._law, self._learning, self._exposure = law, learning, law.start()
        self._supply = None if passes is None else Supply(np.zeros(law.base.size), passes)

    def go(self, weights: Array, learning: float) -> None:
        """Train on ``weights`` (k,)."""
        part = self._supply and self._supply.part(learning / self._learning)
        self._exposure = self._law.after(self._exposure, weights, learning, part)
        if self._supply is not None and part is not None:
            self._supply = replace(self._supply, seen=part.after(weights).seen)

    @property
    def seen(self) -> Array | None:
        """How many times each domain's rows were seen, (k,)."""
        return None if self._supply is None else self._supply.seen

    def losses(self, rate: float = 0.0) -> Array:
        """Losses by draw of the law, shape (n, k); ``rate`` as in :meth:`.Law.losses`."""
        return self._law.losses(self._exposure, rate)


def follow(
    law: Law,
    path: Path,
    passes: Array | None = None,
    learning: float | None = None,
    rate: float = 0.0,
) -> Array:
    """Losses at the end of ``path`` by draw of the law, shape (n, k).

    ``passes`` (k,) and ``learning`` as in :class:`Simulation`; None: the path is all of it.
    ``rate``: the learning rate over its peak there.
    """
    simulation = Simulation(law, learning or sum(part for _, part in path), passes)
    for weights, part in path:
        simulation.go(weights, part)
    return simulation.losses(rate)


LOWEST = 0.02
"""The lowest end of a training, in parts of the base model's loss; the highest is
:data:`.lookahead.HIGHEST`. Drawn laws can say more, no training."""


def scattered(ends: Array, base: Array) -> Array:
    """The ends of :func:`follow` (n, k), each with what the law leaves unexplained, from
    :data:`LOWEST` to the highest end; ``base`` (k,) are the base model's losses. It draws the same
    for every path, so that two are compared law by law.
    """
    drawn = np.random.default_rng(0).standard_normal(ends.shape)
    with np.errstate(over="ignore"):
        return np.clip(ends * np.exp(UNEXPLAINED * drawn), LOWEST * base, HIGHEST * base)


def headroom(
    law: Law, learning: float, objective: Objective, passes: Array | None = None
) -> Headroom:
    """The best static mix against equal shares, both kept for ``learning``.

    ``gain`` is the mean over the law's draws of what the mix that is expected to be best gains.
    Its lower end is of the same gains, so it is 0 or less where the draws can't tell that mix from
    equal shares. Its upper end is of what each draw's own best mix gains by it, of :data:`LAWS`
    draws: nobody knows beforehand which mix that is. ``passes`` as in :func:`follow`.
    """
    k = law.base.size
    uniform = np.full(k, 1 / k)
    supply = None if passes is None else Supply(np.zeros(k), passes)
    outlook = Outlook(law, learning, objective.surrogate, uniform, caution=0.0, supply=supply)
    bounds = Bounds(floor=0.01 if k < 50 else 0.0)
    expected = best_shares(outlook, bounds)

    def gains(law: Law, best: Array, drawn: Callable[[Array], Array]) -> Array:
        ends = (follow(law, [(weights, learning)], passes) for weights in (uniform, best))
        even, better = (np.array([objective.value(end) for end in drawn(each)]) for each in ends)
        return objective.gain(better, even)

    own = np.empty(min(LAWS, law.numbers.shape[0]))
    for i in range(own.size):
        one = replace(law, numbers=law.numbers[i : i + 1])
        own[i] = gains(one, best_shares(replace(outlook, law=one), bounds), np.asarray)[0]
    each = gains(law, expected, lambda ends: scattered(ends, law.base))
    point, low = float(each.mean()), float(np.quantile(each, INTERVAL[0]))
    high = float(np.quantile(own, INTERVAL[1]))
    unit = POINTS.get(objective.kind, "%")
    return Headroom(expected, point, min(low, point), max(high, point), unit)


def forecast(
    domains: Sequence[str],
    law: Law,
    objective: Objective,
    routes: Mapping[str, Route],
    learning: float,
    passes: Array | None = None,
    noise: Noise | None = None,
) -> dict[str, Any]:
    """The part of forecast.json that the law tells: by route where it ends, and the headroom.

    ``learning``: of the whole training; a route that ends early spends less. The best static
    mix is added as ``best``. ``gain`` is over equal shares, by :meth:`.Objective.gain`.
    ``passes``: how many times the whole training would go over each domain's rows at a share of 1;
    None: none repeats. ``noise``: what tolerances in standard errors go by; None: these are 0.
    ``above_tolerance``: the domains that end above their tolerance by the likeliest law.
    """
    room = headroom(law, learning, objective, passes)
    k = law.base.size

    def ends_of(route: Route) -> tuple[Array, Array, Array]:
        """By the likeliest law (k,), by all as they may scatter (n, k), and these objectives."""
        ends = follow(law, route.path, passes, learning, route.rate)
        drawn = scattered(ends, law.base)
        return ends[0], drawn, np.array([objective.value(each) for each in drawn])

    first, _, equals = ends_of(static(np.full(k, 1 / k), learning))
    equal = objective.value(first)
    strategies = {}
    for name, route in {**routes, "best": static(room.weights, learning)}.items():
        end, drawn, values = ends_of(route)
        over = objective.excess(end, noise.error(end, law.base) if noise else None)
        low, high = np.quantile(drawn, INTERVAL, axis=0)
        gains = np.quantile(objective.gain(values, equals), INTERVAL)
        strategies[name] = {
            "objective": objective.value(end),
            "objective_low": float(np.quantile(values, INTERVAL[0])),
            "objective_high": float(np.quantile(values, INTERVAL[1])),
            "gain": float(objective.gain(objective.value(end), equal)),
            "gain_low": float(gains[0]),
            "gain_high": float(gains[1]),
            "above_tolerance": [d for d, by in zip(domains, over, strict=True) if by > 0],
            "domains": {
                domain: {
                    "weight": float(route.weights[j]),
                    "loss": float(end[j]),
                    "low": float(low[j]),
                    "high": float(high[j]),
                }
                for j, domain in enumerate(domains)
            },
        }
    return {
        "objective": objective.kind,
        "learning": learning,
        "headroom": {"gain": room.gain, "low": room.low, "high": room.high},
        "advice": room.advice,
        "strategies": strategies,
    }
