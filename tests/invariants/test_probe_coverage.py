"""Simulated worlds: the 95 % intervals hold the truth 92 to 98 times in 100, also when stopped."""

import numpy as np
import pytest

from tests.probe_worlds import holds, judged, labelled_rows, worlds
from versatune.probing.estimate import estimate_shares, narrow_enough


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
