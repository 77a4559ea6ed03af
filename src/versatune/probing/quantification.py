"""From a judge's probabilities to domain shares, corrected for the judge's own errors.

Notation: k domains; P (n, k) the judge's probabilities for n sampled texts; Q (m, k) its
probabilities for m labelled rows it was not trained on, with true domains y. The assumption of
every correction is label shift: within a domain, sampled texts are judged as its labelled rows
are. :mod:`versatune.probing.shift` tests it. A second judge that looks at a part of the samples
needs no such assumption about the first one (:func:`audited_mean`).
"""

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from versatune.intervals import Array

Labels = npt.NDArray[np.int64]
Correction = Literal["pacc", "acc", "em", "none"]

_SUM_WEIGHT = 1e3
"""Weight of the row that asks the shares to sum to one; large beside entries of at most 1."""


def raw_shares(probabilities: Array) -> Array:
    """P_j = mean over texts of p_ij (Algorithm 1); (n, k) -> (k,). ValueError if n = 0."""
    if not len(probabilities):
        raise ValueError("no judged text")
    result: Array = probabilities.mean(axis=0)
    return result


def hard(probabilities: Array) -> Array:
    """All mass on the likeliest domain; (n, k) -> (n, k) of zeros and ones."""
    one_hot: Array = np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)]
    return one_hot


def response_matrix(probabilities: Array, labels: Labels) -> Array:
    """M_ij = what the judge gives domain j, on average, for rows truly of domain i; (k, k).

    Rows sum to 1. ValueError when a domain has no row: its errors can't be known.
    """
    k = probabilities.shape[1]
    counts = np.bincount(labels, minlength=k)
    if (counts == 0).any():
        raise ValueError(f"no labelled row of domain number {int(np.argmin(counts))}")
    matrix: Array = (np.eye(k)[labels].T @ probabilities) / counts[:, None]
    return matrix


def adjusted_shares(raw: Array, response: Array) -> Array:
    """Adjusted counts: argmin over the simplex of |M^T s - raw|^2; (k,), (k, k) -> (k,).

    With M invertible and the unconstrained solution inside the simplex this is M^-T raw
    (Forman 2008 for hard labels, ACC; Bella et al. 2010 for probabilities, PACC).
    """
    k = len(raw)
    system = np.vstack([response.T, np.full((1, k), _SUM_WEIGHT)])
    solution, _ = nnls(system, np.append(raw, _SUM_WEIGHT))
    shares: Array = solution / solution.sum()
    return shares


def em_shares(
    probabilities: Array,
    prior: Array,
    weights: Array | None = None,
    tolerance: float = 1e-6,
    max_steps: int = 500,
) -> Array:
    """Expectation maximisation of the shares (Saerens et al. 2002); (n, k), (k,) -> (k,).

    s_j <- mean_i of p_ij s_j / prior_j, normalised within each text. ``prior``: the shares the
    judge's probabilities were calibrated for, all above 0. The likelihood is concave in s.
    """
    ratio = probabilities / prior
    weights = np.full(len(ratio), 1 / len(ratio)) if weights is None else weights / weights.sum()
    shares = np.full(len(prior), 1 / len(prior))
    for _ in range(max_steps):
        mixed = np.maximum(ratio @ shares, 1e-300)
        updated = shares * ((weights / mixed) @ ratio)
        updated /= updated.sum()
        if np.abs(updated - shares).max() < tolerance:
            result: Array = updated
            return result
        shares = updated
    return shares


def audit_chances(probabilities: Array, n: int) -> Array:
    """The chance of each text to be among the ``n`` a second judge looks at; (N, k) -> (N,).

    Half of it alike for all, half in proportion to sqrt(1 - max_j p_ij): texts the first judge is
    unsure of tell more about its errors (active statistical inference, Zrnic & Candes 2024). The
    even half keeps every chance at n / 2N or above, so no text ever weighs more than 2N / n. Sums
    to n, or is 1 everywhere when n >= N.
    """
    total = len(probabilities)
    if n >= total:
        return np.ones(total)
    unsure = np.sqrt(np.maximum(1 - probabilities.max(axis=1), 0))
    lean = unsure / unsure.mean() if unsure.any() else np.ones(total)
    chances: Array = (1 + lean) / 2 * n / total
    while (chances > 1).any():
        sure = chances >= 1
        chances[sure] = 1
        chances[~sure] *= (n - sure.sum()) / chances[~sure].sum()
    return chances


def audited_mean(probabilities: Array, second: Array, chances: Array, counts: Array) -> Array:
    """The second judge's mean over all texts, from its answers on a part; (k,).

    sum_i c_i p_i / sum_i c_i + sum_i w_i (q_i - p_i) / sum_i w_i, w_i = c_i / chance_i over the
    texts with an answer q_i (rows of ``second`` (n, k) that are not NaN), c_i = ``counts`` (n,) how
    often a text counts. The first judge's mean plus what it errs by, as far as the second can say:
    the difference estimator of survey sampling (Cassel, Saerndal & Wretman 1976), lately
    prediction-powered inference (Angelopoulos et al. 2023). Right for large n whatever the first
    judge does; entries may lie outside [0, 1].
    """
    mean: Array = counts @ probabilities / counts.sum()
    weights = np.where(np.isnan(second[:, 0]), 0.0, counts / chances)
    if weights.any():
        mean = mean + weights @ np.nan_to_num(second - probabilities) / weights.sum()
    return mean


def correct(probabilities: Array, labelled: Array, labels: Labels, correction: Correction) -> Array:
    """Shares by the named correction; (n, k), (m, k), (m,) -> (k,)."""
    k = probabilities.shape[1]
    if correction == "none":
        return raw_shares(probabilities)
    if correction == "em":
        return em_shares(probabilities, np.full(k, 1 / k))
    if correction == "acc":
        probabilities, labelled = hard(probabilities), hard(labelled)
    return adjusted_shares(raw_shares(probabilities), response_matrix(labelled, labels))
