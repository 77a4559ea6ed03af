"""What each domain is forecast to reach for a mix, and what the best mix can win at most.

From a mixing law (:mod:`versatune.mixing.law`) with the standard errors of its slopes: laws are
drawn from these, and every draw is followed to the end of training. Intervals are of 90 %.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from versatune.mixing.law import Law, advance, reducible
from versatune.mixing.lookahead import Bounds, Outlook, best_shares
from versatune.mixing.objective import Objective
from versatune.mixing.repeats import Supply
from versatune.mixing.shares import Array

Path = Sequence[tuple[Array, float]]
"""Shares and the learning amount that is spent on them, one after another."""

DRAWS = 400
INTERVAL = (0.05, 0.95)

UNEXPLAINED = 0.05
"""How far a forecast fall may be off besides the slopes' errors, as a part of itself: what a law of
one power leaves out where several things are learnt. In nats, since a domain near its floor is
off by as much of the way there as one far from it."""

WORTH = 0.01
"""A gain over equal shares below this is not worth steering for: seeds differ by as much."""


@dataclass(frozen=True)
class Headroom:
    """What the best static mix is forecast to gain over equal shares, in parts of the objective."""

    weights: Array
    """That mix."""
    gain: float
    low: float
    high: float

    @property
    def advice(self) -> str:
        """What to do about it."""
        gain, low, high = (round(100 * part, 1) + 0.0 for part in (self.gain, self.low, self.high))
        numbers = f"{gain:.1f} % ({low:.1f} to {high:.1f} %) over equal shares"
        if self.high < WORTH:
            return f"A mix can gain {numbers} at most: take uniform and skip the references."
        if self.low > WORTH:
            return f"A mix can gain {numbers}: take mixing_law, starting from these slopes."
        return (
            f"A mix can gain {numbers}, and whether it is worth steering is open: uniform is safe, "
            "mixing_law stays with it unless it sees more."
        )


def follow(law: Law, loss: Array, path: Path, passes: Array | None = None) -> Array:
    """Losses (k,) at the end of ``path`` from losses ``loss`` (k,).

    ``passes``: how many times the whole path would go over each domain's rows at a share of 1,
    spent as learning is; None: no row is repeated.
    """
    y = start = reducible(loss, law.floor)
    total = sum(learning for _, learning in path)
    supply = None if passes is None else Supply(np.zeros(loss.size), passes)
    for weights, learning in path:
        part = None if supply is None else supply.part(learning / total)
        y = advance(law, y, weights, learning, part)[0]
        if supply is not None and part is not None:
            supply = replace(supply, seen=part.after(weights).seen)
    return loss + (y - start)


def drawn(law: Law, rng: np.random.Generator) -> Law:
    """A law that could as well be the true one: slopes drawn by their covariance."""
    k = law.floor.size
    roots = np.linalg.cholesky(law.covariance)
    off = np.einsum("iab,ib->ia", roots, rng.standard_normal((k, k)))
    return replace(law, slopes=law.slopes + off)


PLAUSIBLE = (0.05, 3.0)
"""Ends of a training, in parts of the base model's loss. Drawn slopes can say more: a power of the
exposure has no upper end, a model that forgets all has."""


def simulated(
    law: Law,
    loss: Array,
    path: Path,
    seed: int = 0,
    draws: int = DRAWS,
    passes: Array | None = None,
) -> Array:
    """Losses at the end of ``path`` for each of ``draws`` laws, shape (draws, k).

    The same seed draws the same laws, so that two paths are compared law by law. ``passes`` as in
    :func:`follow`. Ends lie within :data:`PLAUSIBLE`.
    """
    rng = np.random.default_rng(seed)
    result = np.empty((draws, loss.size))
    for d in range(draws):
        with np.errstate(over="ignore"):
            end = np.minimum(follow(drawn(law, rng), loss, path, passes), PLAUSIBLE[1] * loss)
        result[d] = end + UNEXPLAINED * (loss - end) * rng.standard_normal(loss.size)
    return np.clip(result, PLAUSIBLE[0] * loss, PLAUSIBLE[1] * loss)


def headroom(
    law: Law,
    loss: Array,
    learning: float,
    objective: Objective,
    passes: Array | None = None,
    draws: int = DRAWS,
) -> Headroom:
    """The best static mix by the law against equal shares, both kept for ``learning``.

    ``gain`` is by the law itself; its interval is of that mix's gain over the draws, so it is 0 or
    less at its lower end where the slopes can't tell the mix from equal shares. ``passes`` as in
    :func:`follow`.
    """
    uniform = np.full(loss.size, 1 / loss.size)
    supply = None if passes is None else Supply(np.zeros(loss.size), passes)
    outlook = Outlook(law, loss, learning, objective.surrogate, uniform, caution=0.0, supply=supply)
    best = best_shares(outlook, Bounds(floor=0.01 if loss.size < 50 else 0.0))

    def gain(better: Array, worse: Array) -> float:
        first = objective.value(worse)
        return (first - objective.value(better)) / abs(first)

    paths = [[(uniform, learning)], [(best, learning)]]
    ends = [simulated(law, loss, path, draws=draws, passes=passes) for path in paths]
    gains = np.array([gain(b, u) for u, b in zip(*ends, strict=True)])
    even, better = (follow(law, loss, path, passes) for path in paths)
    point = gain(better, even)
    low, high = (float(q) for q in np.quantile(gains, INTERVAL))
    return Headroom(best, point, min(low, point), max(high, point))


def forecast(
    domains: Sequence[str],
    law: Law,
    loss: Array,
    objective: Objective,
    paths: Mapping[str, Path],
    passes: Array | None = None,
) -> dict[str, Any]:
    """The part of forecast.json that the law tells: by path where it ends, and the headroom.

    ``loss``: the base model's losses (k,). All paths should spend the same learning amount; that
    of the first is taken for the best static mix, which is added as ``best``. ``gain`` is over
    equal shares, in parts of their objective. ``passes``: how many times the whole training would
    go over each domain's rows at a share of 1; None: none repeats.
    """
    learning = float(sum(part for _, part in next(iter(paths.values()))))
    room = headroom(law, loss, learning, objective, passes)
    uniform = [(np.full(loss.size, 1 / loss.size), learning)]
    equal = objective.value(follow(law, loss, uniform, passes))
    equals = np.array([objective.value(e) for e in simulated(law, loss, uniform, passes=passes)])
    strategies = {}
    for name, path in [*paths.items(), ("best", [(room.weights, learning)])]:
        end = follow(law, loss, path, passes)
        ends = simulated(law, loss, path, passes=passes)
        low, high = np.quantile(ends, INTERVAL, axis=0)
        values = np.array([objective.value(e) for e in ends])
        gains = np.quantile((equals - values) / np.abs(equals), INTERVAL)
        strategies[name] = {
            "objective": objective.value(end),
            "objective_low": float(np.quantile(values, INTERVAL[0])),
            "objective_high": float(np.quantile(values, INTERVAL[1])),
            "gain": (equal - objective.value(end)) / abs(equal),
            "gain_low": float(gains[0]),
            "gain_high": float(gains[1]),
            "within_tolerance": objective.meets_tolerance(end),
            "domains": {
                domain: {
                    "weight": float(_mean_shares(path)[j]),
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


def _mean_shares(path: Path) -> Array:
    total = sum(learning for _, learning in path)
    return np.asarray(sum(weights * (learning / total) for weights, learning in path))
