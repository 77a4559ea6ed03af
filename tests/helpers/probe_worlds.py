"""Simulated worlds for the probe: known shares, a judge that errs, labelled rows that tell how."""

from collections.abc import Iterator

import numpy as np
from scipy.special import softmax

from versatune.probing.estimate import Estimate
from versatune.probing.judges.base import Labelled
from versatune.probing.quantification import Array

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
