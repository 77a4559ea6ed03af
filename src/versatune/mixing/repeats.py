"""What rows teach when they are seen again.

A domain's rows teach less with every pass over them. By Muennighoff et al. (arXiv 2305.16264), U
units seen s = 1 + R times are worth U (1 + R* (1 - exp(-R / R*))) fresh ones: a pass is worth
exp(-(s - 1) / R*) of the first one. R* is fitted with the law (:mod:`versatune.mixing.law`).

Arrays have shape (k,).
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from versatune.mixing.shares import Array

USUAL_REPEATS = 30.0
"""R* to expect where no run says more: 15 in the paper, for pretraining; rows of several phrasings
of a fact went on teaching for longer in the two worlds the law was made with."""


def worth(passes: Array, repeats: Array | float) -> Array:
    """U(s), in passes over fresh rows, for ``passes`` s >= 0 and R* ``repeats``."""
    more = np.maximum(passes - 1.0, 0.0)
    return np.asarray(np.minimum(passes, 1.0) + repeats * -np.expm1(-more / repeats))


def worth_by_log(passes: Array, repeats: Array | float) -> Array:
    """dU / d ln R*."""
    left = np.maximum(passes - 1.0, 0.0) / repeats
    return np.asarray(repeats * (-np.expm1(-left) - left * np.exp(-left)))


def marginal(passes: Array, repeats: Array | float) -> Array:
    """dU/ds at ``passes``."""
    return np.asarray(np.exp(-np.maximum(passes - 1.0, 0.0) / repeats))


@dataclass(frozen=True)
class Supply:
    """How often each domain's rows were seen, and would be in a stretch of training."""

    seen: Array
    """Passes over each domain's rows so far."""
    alone: Array
    """Passes that the whole stretch would make over a domain's rows at a share of 1; 0 where rows
    never run out."""

    def part(self, part: float) -> Self:
        """The same for a part of the stretch."""
        return replace(self, alone=self.alone * part)

    def after(self, weights: Array) -> Self:
        """The same once a stretch on ``weights`` is done."""
        return replace(self, seen=self.seen + weights * self.alone)

    def fresh(self, weights: Array, repeats: Array | float) -> tuple[Array, Array]:
        """Shares of fresh rows that would teach as much as ``weights``, and their derivatives."""
        some = self.alone > 0
        alone = np.where(some, self.alone, 1.0)
        end = self.seen + weights * alone
        grown = (worth(end, repeats) - worth(self.seen, repeats)) / alone
        # Where rows never run out they stay as fresh as they are.
        now = marginal(self.seen, repeats)
        return (
            np.where(some, grown, now * weights),
            np.where(some, marginal(end, repeats), now),
        )
