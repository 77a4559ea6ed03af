"""A mixing law: how each domain's share moves each domain's held-out loss.

The reducible part y_i of domain i's loss follows its exposure w_i as a power, y_i = C w_i^-b_i.
Training on shares x for a learning amount E (learning rate over its peak, summed over steps) adds
to the exposure what the rows teach and takes away what they make forget:

    dw_i = (p_i - n_i w_i) dE,   p_i - n_i = sum_j a_ij x_j / b_i   with w_i = 1 at the start,
    w_i(E) = exp(-N) + P (1 - exp(-N)) / N,   P = p_i E,  N = n_i E,   y_i(E) = y_i w_i(E)^-b_i

P collects the positive a_ij, N the negative ones. For small E, ln y_i falls by E sum_j a_ij x_j:
a_ij is domain i's slope per unit of learning on domain j alone (negative: j harms i). For b -> inf
that is the exponential law of Data Mixing Laws (arXiv 2403.16952) and Olmix (2602.12237); the
power makes a first small share worth most, as rehearsal is. What is learnt makes later learning
slower: a slope measured where the reducible loss was ``at`` counts (y / at)^(1/b) at y. Forgetting
(a negative slope) does not slow down. Rows that are seen again teach their own domain less, and in
the end harm it: x_i in a_ii x_i is then the share of fresh rows that would do as much
(:mod:`versatune.mixing.repeats`).

Arrays have shape (k,) or (k, k), row i the domain measured and column j the domain trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from versatune.mixing.repeats import USUAL_REPEATS, Supply
from versatune.mixing.shares import Array

LEAST = 0.02
"""The part of a loss that counts as reducible at least, where it has come near its floor."""

RATIO = 4.0
"""A slope is never taken to be more than so many times, or less than so small a part, of what was
measured because the loss is elsewhere now."""


@dataclass(frozen=True)
class Law:
    """Slopes with their uncertainty, and where they hold."""

    slopes: Array
    """a_ij, shape (k, k), per unit of learning."""
    covariance: Array
    """Of row i's slopes, shape (k, k, k)."""
    exponent: Array
    """b_i > 0."""
    floor: Array
    """e_i >= 0, the part of the loss that no training takes away."""
    at: Array
    """y_i > 0, the reducible losses at which the slopes hold."""
    slows: Array
    """1 where a slope gets smaller as y falls, 0 where it stays (forgetting), shape (k, k)."""
    repeats: float = USUAL_REPEATS
    """R*: how soon rows that are seen again teach less (:mod:`versatune.mixing.repeats`)."""

    def now(self, y: Array) -> Array:
        """The factor of each slope at reducible losses ``y``, shape (k, k)."""
        factor = np.clip((y / self.at) ** (1 / self.exponent), 1 / RATIO**3, RATIO)
        return np.where(self.slows > 0, factor[:, None], 1.0)

    def to_json(self) -> dict[str, Any]:
        """As JSON types; the covariance as standard errors."""
        return {
            "slopes": self.slopes.tolist(),
            "stderr": np.sqrt(np.diagonal(self.covariance, axis1=1, axis2=2)).tolist(),
            "exponent": self.exponent.tolist(),
            "floor": self.floor.tolist(),
            "at": self.at.tolist(),
            "repeats": self.repeats,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """From :meth:`to_json`, or from numbers written by hand."""
        slopes = np.asarray(value["slopes"], dtype=np.float64)
        stderr = np.asarray(value["stderr"], dtype=np.float64)
        return cls(
            slopes,
            diagonal_covariance(stderr),
            exponent=np.asarray(value["exponent"], dtype=np.float64),
            floor=np.asarray(value["floor"], dtype=np.float64),
            at=np.asarray(value["at"], dtype=np.float64),
            slows=(slopes >= 0).astype(np.float64),
            repeats=float(value.get("repeats", USUAL_REPEATS)),
        )

    def doubted(self, own: float, others: float) -> Self:
        """The law as a prior for another training: its slopes may be off by parts of themselves.

        ``own``: of a slope itself; ``others``: of the domain's slope on its own rows, added to all.
        """
        size = np.abs(self.slopes)
        more = (own * size) ** 2 + (others * np.diag(size)[:, None]) ** 2
        return replace(self, covariance=self.covariance + diagonal_covariance(np.sqrt(more)))


@dataclass(frozen=True)
class Record:
    """What one stretch of training did; arrays have shape (k,)."""

    weights: Array
    learning: float
    before: Array
    """Losses before it."""
    after: Array
    """Losses after it, of the same rows."""
    stderr: Array
    """Of ln(after / before), paired by row."""
    seen: Array | None = None
    """Passes over each domain's rows before it; None: not known, nothing counts as repeated."""
    alone: Array | None = None
    """Passes it would have made over a domain's rows at a share of 1."""

    @property
    def supply(self) -> Supply | None:
        """What was seen before, and in it."""
        if self.seen is None or self.alone is None:
            return None
        return Supply(self.seen, self.alone)

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        arrays = {k: v.tolist() for k, v in vars(self).items() if isinstance(v, np.ndarray)}
        return {**arrays, "learning": self.learning}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """From :meth:`to_json`."""
        arrays = {k: np.array(v, dtype=np.float64) for k, v in value.items() if k != "learning"}
        return cls(learning=float(value["learning"]), **arrays)


def reducible(loss: Array, floor: Array) -> Array:
    """y = loss - floor, at least :data:`LEAST` of the loss, so that its logarithm exists."""
    return np.maximum(loss - floor, LEAST * loss)


def gained(before: Array, after: Array, exponent: Array) -> Array:
    """b ((y_before / y_after)^(1/b) - 1): sum_j a_ij x_j E by what was measured, shape (k,).

    The inverse of :func:`advance` where nothing is forgotten; where the loss rose, its logarithm.
    """
    fall = np.log(before / after)
    grown = exponent * np.expm1(np.clip(fall / exponent, -50.0, 50.0))
    return np.where(fall > 0, grown, fall)


def taught(law: Law, weights: Array, supply: Supply | None) -> tuple[Array, Array]:
    """Row i: the shares as domain i learns by them, and their derivatives by x_j; (k, k) each.

    They are ``weights`` but on the diagonal, where the domain's own rows are seen again.
    """
    k = weights.size
    effective, derivative = np.tile(weights, (k, 1)), np.ones((k, k))
    if supply is not None:
        own = np.diag(law.slopes) > 0
        fresh, slope = supply.fresh(weights, law.repeats)
        np.fill_diagonal(effective, np.where(own, fresh, weights))
        np.fill_diagonal(derivative, np.where(own, slope, 1.0))
    return effective, derivative


def advance(
    law: Law, y: Array, weights: Array, learning: float, supply: Supply | None = None
) -> tuple[Array, Array]:
    """Reducible losses after ``learning`` on ``weights`` from ``y``, and their derivatives.

    ``supply``: how often rows are repeated meanwhile; None: never.
    Returns shape (k,) and d y_i / d x_j, shape (k, k).
    """
    effective, derivative = taught(law, weights, supply)
    slopes = law.slopes * law.now(y) * (learning / law.exponent[:, None])
    teaches = slopes * effective
    p, n = np.maximum(teaches, 0.0).sum(1), np.maximum(-teaches, 0.0).sum(1)
    # A negative term counts as forgetting: of a negative slope, or of rows seen too often.
    harms = (slopes < 0) | (teaches < 0)
    by_share = slopes * derivative
    learns, forgets = np.where(harms, 0.0, by_share), np.where(harms, -by_share, 0.0)
    left = np.exp(-n)
    small = n < 1e-4
    safe = np.where(small, 1.0, n)
    kept = np.where(small, 1 - n / 2, -np.expm1(-safe) / safe)
    kept_slope = np.where(small, -0.5 + n / 3, (left * (1 + safe) - 1) / safe**2)
    exposure = left + p * kept
    end = y * exposure**-law.exponent
    per_p = -law.exponent * end / exposure * kept
    per_n = -law.exponent * end / exposure * (p * kept_slope - left)
    return end, per_p[:, None] * learns + per_n[:, None] * forgets


def fit(
    prior: Law,
    records: Sequence[Record],
    discount: float = 1.0,
    misfit: float = 0.1,
    unit: float | None = None,
) -> Law:
    """The slopes after ``records``, oldest first: Bayesian linear regression from ``prior``.

    Row i: gained_i / E = sum_j a_ij (its factor at the time) x_j, with the standard error of the
    change and, besides, ``misfit`` of what was gained, since the law is not exact. A record
    counts ``discount`` times as much for each ``unit`` of learning that came after it (None: for
    each record), so that many short rounds are remembered as long as few long ones. Held-out
    rows are the same in each round, and slow ones stay slow, so all records together are as
    certain as one and not as many: they tell the domains apart by their different shares. The
    prior is the ridge; with no record it is what comes out.
    """
    k = prior.floor.size
    precision = np.linalg.inv(prior.covariance)
    wanted = np.einsum("iab,ib->ia", precision, prior.slopes)
    amounts = [record.learning / unit if unit else 1.0 for record in reversed(records)]
    weights = discount ** np.concatenate([[0.0], np.cumsum(amounts)])[: len(records)]
    alike = max(float(weights.sum()), 1.0)
    for weight, record in zip(weights, reversed(records), strict=True):
        if record.learning <= 0:
            continue
        before, after = (reducible(v, prior.floor) for v in (record.before, record.after))
        got = gained(before, after, prior.exponent) / record.learning
        steep = np.maximum(1.0, (before / after) ** (1 / prior.exponent))
        noise = record.stderr * record.after / after * steep / record.learning
        error = noise**2 + (misfit * got) ** 2
        # A change that happened half way stands for the slopes half way.
        shares = taught(prior, record.weights, record.supply)[0]
        features = prior.now(np.sqrt(before * after)) * shares
        trust = weight / alike / np.maximum(error, 1e-12 + 1e-6 * got**2)
        precision = precision + trust[:, None, None] * features[:, :, None] * features[:, None, :]
        wanted = wanted + (trust * got)[:, None] * features
    covariance = np.linalg.inv(precision)
    covariance = (covariance + covariance.transpose(0, 2, 1)) / 2
    slopes = np.einsum("iab,ib->ia", covariance, wanted)
    assert slopes.shape == (k, k)
    return replace(prior, slopes=slopes, covariance=covariance)


def without_references(first: Record, floor: Array, exponent: Array) -> Law:
    """A weak prior from one record alone, in which all domains are taken to be alike.

    Half of what the first round's gains (least squares over its shares) say a domain's own rows
    are worth is theirs; the median of what is left is what any rows do to any domain, which may be
    forgetting. Then a fall of the losses says nothing of what own rows are worth: they are taken
    to be worth half of what would hold a domain where it is at an equal share, or half of what the
    gains rise with the shares if that is more. (Taken to be worth nothing, what they teach would
    be put down to the rows of whichever domain had many.) Later records tell the domains apart.
    """
    before, after = reducible(first.before, floor), reducible(first.after, floor)
    rate = gained(before, after, exponent) / max(first.learning, 1e-12)
    x, k = first.weights, first.weights.size
    own = max(float(x @ rate) / float(x @ x) / 2, 0.1 * float(np.abs(rate).max()), 1e-6)
    shared = float(np.median(rate - own * x))
    if shared < 0:
        apart = x - x.mean()
        rises = float(apart @ rate) / max(float(apart @ apart), 1.0 / k**2)
        own = max(own, -shared * k / 2, rises / 2)
        shared = float(np.median(rate - own * x))
    diagonal = np.eye(k)
    slopes = shared + own * diagonal
    spread = (abs(shared) / 2 + 0.1 * own) * (1 - diagonal) + 0.7 * own * diagonal
    slows = (slopes >= 0).astype(np.float64)
    return Law(slopes, diagonal_covariance(spread), exponent, floor, before, slows)


def diagonal_covariance(stderr: Array) -> Array:
    """Covariances (k, k, k) without correlation from standard errors (k, k)."""
    k = stderr.shape[0]
    result = np.zeros((k, k, k))
    result[:, np.arange(k), np.arange(k)] = np.maximum(stderr, 1e-9) ** 2
    return result
