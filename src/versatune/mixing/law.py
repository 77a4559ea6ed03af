"""A mixing law: how each domain's held-out loss follows from what was trained on.

With x_i the share of domain i, eta the learning rate over its peak, and sums over the steps so far:

    F_i = sum of eta (1 - x_i)      the others' rows
    A_i = sum of eta x_i exp(-phi (F_i - F_i then))     its own rows, repeated ones by their worth
    w_i = (1 + nu F_i)^(-1/2) + alpha A_i + beta F_i
    L_i = (e + (L_i(0) - e) w_i^-b) exp(tau eta)

w is the domain's exposure in units of what the base model knows of it. The first term is what is
left of that while other rows are trained on: it fades ever more slowly, and a domain whose rows are
seen too comes back. alpha is what own rows teach, beta what the others' do; what own rows taught
fades by phi. For a domain that the base does not know (alpha large) L falls as a power of its
tokens with floor e, as in scaling laws; for one it knows, w is about linear in the domain's share,
so that a small share keeps most of it.
tau is what a high learning rate adds for the time being: it raises losses at once and goes when the
rate is annealed (Tissue et al., arXiv 2408.11029), so a rise early in a training is not yet
forgetting. Rows seen again count less (:mod:`versatune.mixing.repeats`).

A domain's loss depends on its own share alone, what the others do being alike; so eight numbers a
domain can be told from few runs (:mod:`versatune.mixing.law_fit`). The law is the likeliest fit and
:data:`DRAWS` others that could as well be true.

Arrays have shape (k,), or (n, k) for n draws.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np

from versatune.mixing.repeats import USUAL_REPEATS, Supply
from versatune.mixing.shares import Array

DRAWS = 96

PRIOR = {
    "alpha": (np.log(1.0), 2.5),
    "nu": (np.log(2.0), 2.0),
    "beta": (np.log(0.2), 1.5),
    "b": (np.log(0.2), 0.3),
    "floor": (-3.0, 1.2),
    "tau": (0.05, 0.1),
    "repeats": (np.log(USUAL_REPEATS), 1.0),
    "fade": (np.log(0.5), 1.5),
}
"""Means and standard deviations of ln alpha, ln nu, ln beta, ln b, the log odds of the floor's part
of the least loss measured, tau, ln R*, and ln phi. alpha, nu, beta and phi are those of a whole
training here, so that they are the same for small and large batches. Chosen in ten worlds that no
table uses."""

BY_LEARNING = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0])
"""Which numbers of :data:`PRIOR` are logarithms of something per learning amount."""

LOW = np.array([-14.0, -14.0, -14.0, -3.0, -8.0, -1.0, -2.0, -14.0])
HIGH = np.array([6.0, 6.0, 6.0, 3.0, 8.0, 1.0, 5.0, 6.0])


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
    """As in :data:`PRIOR`, shape (n, k, 8)."""
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
        others = (1 - weights) * learning
        fading = self._numbers.fade * others
        kept, _ = kept_part(fading)
        own = exposure.own * np.exp(-fading) + fresh * learning * kept
        return Exposure(own, exposure.others + others)

    def losses(self, exposure: Exposure, rate: float = 0.0) -> Array:
        """Losses by draw, shape (n, k); ``rate``: learning rate over its peak at the time."""
        numbers = self._numbers
        course = Course.of(numbers, self.base, exposure.own, exposure.others)
        return course.loss * np.exp(numbers.tau * rate)

    def ends(
        self, weights: Array, learning: float, supply: Supply | None = None
    ) -> tuple[Array, Array]:
        """Losses after a training on one mix and d L_i / d x_i by draw, (n, k) each."""
        end = self.after(self.start(), weights, learning, supply)
        course = Course.of(self._numbers, self.base, end.own, end.others)
        fresh, by_share = self._fresh(weights, supply)
        fade = self._numbers.fade
        kept, by_fading = kept_part(fade * end.others)
        by_share = by_share * kept - fresh * by_fading * fade * learning
        return course.loss, learning * (course.by_own * by_share - course.by_others)

    def likeliest(self) -> Self:
        """The likeliest law alone."""
        return replace(self, numbers=self.numbers[:1])

    def own_alone(self) -> Self:
        """As if other domains' rows taught a domain nothing (beta = 0)."""
        numbers = self.numbers.copy()
        numbers[:, :, 2] = LOW[2]
        return replace(self, numbers=numbers)

    def _fresh(self, weights: Array, supply: Supply | None) -> tuple[Array, Array]:
        if supply is None:
            shape = self.numbers.shape[:2]
            return np.broadcast_to(weights, shape), np.ones(shape)
        return supply.fresh(weights, self._numbers.repeats)

    @cached_property
    def _numbers(self) -> "Numbers":
        return Numbers.of(self.numbers, self.least)


class Numbers(NamedTuple):
    """The numbers of :data:`PRIOR` as they stand in the formula."""

    alpha: Array
    nu: Array
    beta: Array
    b: Array
    floor: Array
    tau: Array
    repeats: Array
    fade: Array

    @classmethod
    def of(cls, z: Array, least: Array | float) -> Self:
        """From ``z`` (..., 8); ``least``: the least loss measured."""
        z = np.clip(z, LOW, HIGH)
        alpha, nu, beta, b, _, _, repeats, fade = np.exp(np.moveaxis(z, -1, 0))
        floor = least / (1 + np.exp(-z[..., 4]))
        return cls(alpha, nu, beta, b, floor, z[..., 5], repeats, fade)


def kept_part(fading: Array) -> tuple[Array, Array]:
    """What is left on average of things learnt evenly while ``fading`` went on, (1 - e^-u) / u, and
    its derivative."""
    u = np.maximum(fading, 1e-6)
    kept = -np.expm1(-u) / u
    return kept, (np.exp(-u) - kept) / u


class Course(NamedTuple):
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

    @classmethod
    def of(cls, numbers: Numbers, base: Array | float, own: Array, others: Array) -> Self:
        """The law's formula but for the learning rate: after A ``own`` and F ``others``."""
        fades = 1 + numbers.nu * others
        w = fades**-0.5 + numbers.alpha * own + numbers.beta * others
        y = (base - numbers.floor) * w**-numbers.b
        by_w = -numbers.b * y / w
        by_others = by_w * (numbers.beta - 0.5 * numbers.nu * fades**-1.5)
        return cls(numbers.floor + y, w, y, by_w, by_w * numbers.alpha, by_others)
