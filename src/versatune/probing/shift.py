"""Does the correction's assumption hold? Sampled texts against labelled rows.

Under label shift the judge's confidence over the samples is distributed as over the labelled rows,
weighted by the estimated shares. A distance between the two says that sampled texts are judged
unlike the rows the errors were measured on; then no correction is reliable.
"""

from typing import Any

import numpy as np

from versatune.intervals import Array
from versatune.probing.judges.base import Judgement, Labelled

LARGE = 0.3
"""Kolmogorov-Smirnov distance from which the correction is called doubtful: 0.21 was measured
where the shares were right to 0.01, 0.47 and more where they could not be trusted."""
UNFAMILIAR = 0.05
"""Share of the labelled rows that are called unfamiliar: the quantile that defines unfamiliarity.
"""


def row_weights(labelled: Labelled, shares: Array) -> Array:
    """Weights of the labelled rows that give their domains the shares; (m,), sum 1."""
    counts = np.bincount(labelled.labels, minlength=len(shares))
    weights = shares[labelled.labels] / counts[labelled.labels]
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def distance(a: Array, b: Array, a_weights: Array, b_weights: Array) -> float:
    """Kolmogorov-Smirnov distance of two weighted samples, (n,) and (m,); in [0, 1].

    Each one's weights sum to 1.
    """
    points = np.sort(np.concatenate([a, b]))
    return float(np.abs(_below(a, a_weights, points) - _below(b, b_weights, points)).max())


def _below(values: Array, weights: Array, points: Array) -> Array:
    """Weight of the values at most as large as each of the points."""
    order = np.argsort(values)
    steps: Array = np.concatenate([[0.0], np.cumsum(weights[order])])
    return steps[np.searchsorted(values[order], points, side="right")]


def diagnose(
    judgement: Judgement, labelled: Labelled, shares: Array, counts: Array | None = None
) -> dict[str, Any]:
    """How unlike the labelled rows the judged samples are.

    ``counts``: for how many samples each stands, (n,); by default each for itself.

    ``confidence_distance``: distance of the likeliest domain's probability; ``by_chance``: what
    sampling alone stays below in 95 of 100 cases; ``unfamiliar_share``: share of samples with
    fewer known words than all but 5 % of the rows (None for judges that can't say);
    ``doubtful``: distance above chance and above 0.3.
    """
    weights = row_weights(labelled, shares)
    ok = judgement.ok
    found = judgement.probabilities[ok].max(axis=1)
    counts = np.ones(len(ok)) if counts is None else counts
    stands = counts[ok] / counts[ok].sum()
    gap = distance(found, labelled.probabilities.max(axis=1), stands, weights)
    chance = 1.36 * np.sqrt((stands**2).sum() + (weights**2).sum())
    unfamiliar = None
    if not np.isnan(judgement.vocab_coverage[ok]).any():
        order = np.argsort(labelled.vocab_coverage)
        reached = int(np.searchsorted(np.cumsum(weights[order]), UNFAMILIAR))
        edge = labelled.vocab_coverage[order][min(reached, len(order) - 1)]
        below = judgement.vocab_coverage[ok] < edge
        unfamiliar = float(counts[ok][below].sum() / counts[ok].sum())
    return {
        "confidence_distance": gap,
        "by_chance": float(chance),
        "unfamiliar_share": unfamiliar,
        "doubtful": bool(gap > max(chance, LARGE)),
    }
