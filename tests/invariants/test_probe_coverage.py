"""Simulated worlds: the 95 % intervals hold the truth 92 to 98 times in 100, also when stopped."""

import numpy as np
import pytest
from scipy.special import softmax

from versatune.probing.estimate import Estimate, estimate_shares, narrow_enough
from versatune.probing.judges.base import Labelled
from versatune.probing.quantification import Array

VECTORS = (
    np.array([0.08, 0.14, 0.10, 0.20, 0.18, 0.30]),
    np.array([0.03, 0.06, 0.04, 0.07, 0.55, 0.25]),
    np.array([0.40, 0.05, 0.25, 0.05, 0.05, 0.20]),
)


def judged(rng: np.random.Generator, truth: np.ndarray, sharpness: float) -> Array:
    """Probabilities of a judge that errs the more the smaller ``sharpness`` is; (n, 6)."""
    logits = rng.normal(size=(len(truth), 6))
    logits[np.arange(len(truth)), truth] += sharpness
    found: Array = softmax(logits * 2, axis=1)
    return found


def labelled_rows(rng: np.random.Generator, sharpness: float, per_domain: int) -> Labelled:
    labels = np.repeat(np.arange(6), per_domain)
    return Labelled(judged(rng, labels, sharpness), labels, np.full(len(labels), np.nan))


def worlds(n: int) -> list[tuple[np.random.Generator, Array]]:
    return [(np.random.default_rng(seed), VECTORS[seed % 3]) for seed in range(n)]


def holds(found: Estimate, shares: Array) -> Array:
    return (found.low <= shares) & (shares <= found.high)


@pytest.mark.parametrize("sharpness", [1.5, 3.0])
@pytest.mark.parametrize("correction", ["pacc", "acc"])
def test_intervals_hold_the_truth(correction, sharpness):
    hits = []
    for rng, shares in worlds(90):
        rows = labelled_rows(rng, sharpness, 120)
        samples = judged(rng, rng.choice(6, 800, p=shares), sharpness)
        hits.append(holds(estimate_shares(samples, rows, correction, 200, 0), shares))
    assert 0.92 <= np.mean(hits) <= 0.98


def test_stopping_when_narrow_keeps_the_coverage():
    hits, stops = [], []
    for rng, shares in worlds(90):
        rows = labelled_rows(rng, 3.0, 300)
        samples = judged(rng, rng.choice(6, 2560, p=shares), 3.0)
        for n in range(512, 2561, 512):
            found = estimate_shares(samples[:n], rows, "pacc", 120, 0)
            if narrow_enough(found, n, 0.035):
                break
        stops.append(n)
        hits.append(holds(found, shares))
    assert len(set(stops)) > 2  # it does stop at different times
    assert 0.92 <= np.mean(hits) <= 0.98


def test_the_correction_helps_wherever_the_judge_errs():
    corrected, raw = [], []
    for rng, shares in worlds(24):
        rows = labelled_rows(rng, 2.0, 200)
        samples = judged(rng, rng.choice(6, 2000, p=shares), 2.0)
        found = estimate_shares(samples, rows, "pacc", 100, 0)
        corrected.append(np.abs(found.share - shares).sum() / 2)
        raw.append(np.abs(found.raw - shares).sum() / 2)
    assert np.mean(corrected) < 0.05
    assert (np.array(corrected) < np.array(raw)).all()
