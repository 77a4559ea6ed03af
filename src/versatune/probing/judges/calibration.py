"""Calibration of a judge's scores: a temperature and one offset a domain."""

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from versatune.intervals import Array
from versatune.probing.quantification import Labels


def fit(logits: Array, labels: Labels, offsets: bool) -> tuple[float, Array]:
    """Temperature T > 0 and offsets b (k,), so that softmax(logits / T + b) fits the labels.

    Minimises the negative log-likelihood with every domain weighted alike, so the calibrated
    probabilities belong to equal prior shares. Without ``offsets`` b is 0 (one parameter).
    A small ridge on the offsets keeps them finite for separable rows. (n, k), (n,).
    """
    k = logits.shape[1]
    weights = 1 / np.bincount(labels, minlength=k)[labels]
    weights /= weights.sum()
    rows = np.arange(len(labels))

    def loss(theta: Array) -> float:
        scaled = logits * np.exp(-theta[0]) + theta[1:]
        nll = -(weights * log_softmax(scaled, axis=1)[rows, labels]).sum()
        return float(nll + 1e-4 * (theta**2).sum())

    free = 1 + (k if offsets else 0)

    def padded(theta: Array) -> float:
        return loss(np.concatenate([theta, np.zeros(k + 1 - free)]))

    best = minimize(
        padded, np.zeros(free), method="L-BFGS-B", bounds=[(-4, 4)] + [(-20, 20)] * (free - 1)
    )
    theta = np.concatenate([best.x, np.zeros(k + 1 - free)])
    return float(np.exp(theta[0])), theta[1:]


def apply(logits: Array, temperature: float, offsets: Array) -> Array:
    """Calibrated probabilities, (n, k)."""
    probabilities: Array = softmax(logits / temperature + offsets, axis=1)
    return probabilities
