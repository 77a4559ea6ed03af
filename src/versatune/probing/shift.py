"""Does the correction's assumption hold? Sampled texts against labelled rows.

Under label shift the judge's confidence over the samples is distributed as over the labelled
rows, weighted by the estimated shares. A distance between the two says that sampled texts are
judged unlike the rows the errors were measured on; then no correction can be trusted far.
"""

from typing import Any

import numpy as np

from versatune.probing.judges.base import Judgement, Labelled
from versatune.probing.quantification import Array

LARGE = 0.3
"""Kolmogorov-Smirnov distance from which the correction is called doubtful: 0.21 was measured
where the shares were right to 0.01, 0.47 and more where they could not be trusted."""
UNFAMILIAR = 0.05
"""Share of the labelled rows that are called unfamiliar: the quantile that defines the word."""


def row_weights(labelled: Labelled, shares: Array) -> Array:
    """Weights of the labelled rows that give their domains the shares; (m,), sum 1."""
    counts = np.bincount(labelled.labels, minlength=len(shares))
    weights = shares[labelled.labels] / counts[labelled.labels]
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def distance(sample: Array, reference: Array, weights: Array) -> float:
    """Kolmogorov-Smirnov distance of a sample (n,) from a weighted reference (m,); in [0, 1]."""
    points = np.sort(np.concatenate([sample, reference]))
    ours = np.searchsorted(np.sort(sample), points, side="right") / len(sample)
    order = np.argsort(reference)
    steps = np.concatenate([[0.0], np.cumsum(weights[order])])
    theirs = steps[np.searchsorted(reference[order], points, side="right")]
    return float(np.abs(ours - theirs).max())


def diagnose(judgement: Judgement, labelled: Labelled, shares: Array) -> dict[str, Any]:
    """How unlike the labelled rows the judged samples are.

    ``confidence_distance``: distance of the likeliest domain's probability; ``by_chance``: what
    sampling alone stays below in 95 of 100 cases; ``unfamiliar_share``: share of samples with
    fewer known words than all but 5 % of the rows (None for judges that can't say);
    ``doubtful``: distance above chance and above 0.3.
    """
    weights = row_weights(labelled, shares)
    ok = judgement.ok
    found = judgement.probabilities[ok].max(axis=1)
    gap = distance(found, labelled.probabilities.max(axis=1), weights)
    chance = 1.36 * np.sqrt(1 / len(found) + (weights**2).sum())
    unfamiliar = None
    if not np.isnan(judgement.familiarity[ok]).any():
        order = np.argsort(labelled.familiarity)
        reached = int(np.searchsorted(np.cumsum(weights[order]), UNFAMILIAR))
        edge = labelled.familiarity[order][min(reached, len(order) - 1)]
        unfamiliar = float((judgement.familiarity[ok] < edge).mean())
    return {
        "confidence_distance": gap,
        "by_chance": float(chance),
        "unfamiliar_share": unfamiliar,
        "doubtful": bool(gap > max(chance, LARGE)),
    }
