"""Simulated worlds for the probe: known shares, a judge that errs, labelled rows that tell how."""

from collections.abc import Iterator

import numpy as np
from scipy.special import softmax

from versatune.intervals import Array
from versatune.probing.estimate import Estimate
from versatune.probing.judges.base import Labelled

VECTORS = (
    np.array([0.08, 0.14, 0.10, 0.20, 0.18, 0.30]),
    np.array([0.03, 0.06, 0.04, 0.07, 0.55, 0.25]),
    np.array([0.40, 0.05, 0.25, 0.05, 0.05, 0.20]),
)
K = 6


def worlds(n: int) -> Iterator[tuple[np.random.Generator, Array]]:
    """A generator and the true shares of each of ``n`` worlds."""
    return ((np.random.default_rng(seed), VECTORS[seed % len(VECTORS)]) for seed in range(n))


def judged(rng: np.random.Generator, truth: np.ndarray, sharpness: float) -> Array:
    """Probabilities of a judge that errs the more the smaller ``sharpness`` is; (n, 6)."""
    logits = rng.normal(size=(len(truth), K))
    logits[np.arange(len(truth)), truth] += sharpness
    found: Array = softmax(logits * 2, axis=1)
    return found


def labelled_rows(rng: np.random.Generator, sharpness: float, per_domain: int) -> Labelled:
    """The judge's answers on so many rows of each domain."""
    labels = np.repeat(np.arange(K), per_domain)
    return Labelled(judged(rng, labels, sharpness), labels, np.full(len(labels), np.nan))


def holds(found: Estimate, shares: Array) -> Array:
    """Which intervals hold the truth; (6,) bool."""
    return (found.low <= shares) & (shares <= found.high)


SMALL = np.array([0.69, 0.30, 0.01])
LEAKS = {
    "small errs": np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.3, 0.0, 0.7]]),
    "all err": np.array([[0.99, 0.005, 0.005], [0.005, 0.99, 0.005], [0.15, 0.15, 0.7]]),
    "large errs": np.array([[0.97, 0.0, 0.03], [0.0, 1.0, 0.0], [0.3, 0.0, 0.7]]),
}
"""Judges of :data:`SMALL` that lose 30 % of the smallest domain; (3, 3), a row a true domain."""


def small_domain(
    rng: np.random.Generator, leak: Array, n: int, per_domain: int, sure: float = 1.0
) -> tuple[Array, Labelled]:
    """``n`` judged texts of :data:`SMALL` and labelled rows; ``sure``: the least confidence."""

    def judged_as(truth: np.ndarray) -> Array:
        said = (rng.random(len(truth))[:, None] > leak[truth].cumsum(axis=1)).sum(axis=1)
        high = rng.uniform(sure, 1, len(truth)) if sure < 1 else np.ones(len(truth))
        found = np.repeat((1 - high)[:, None] / 2, 3, axis=1)
        found[np.arange(len(truth)), said] = high
        return found

    labels = np.repeat(np.arange(3), per_domain)
    texts = judged_as(rng.choice(3, n, p=SMALL))
    return texts, Labelled(judged_as(labels), labels, np.full(len(labels), np.nan))
