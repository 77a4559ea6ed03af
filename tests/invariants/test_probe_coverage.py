"""Simulated worlds: the 95 % intervals hold the truth 92 to 98 times in 100, also when stopped."""

import numpy as np
import pytest

from tests.helpers.probe_worlds import (
    LEAKS,
    SMALL,
    holds,
    judged,
    labelled_rows,
    small_domain,
    worlds,
)
from versatune.probing.estimate import Audit, estimate_shares, narrow_enough
from versatune.probing.judges.base import Labelled
from versatune.probing.quantification import audit_chances


@pytest.mark.parametrize("sharpness", [1.5, 3.0])
@pytest.mark.parametrize("correction", ["pacc", "acc"])
def test_intervals_hold_the_truth(correction, sharpness):
    hits = []
    for rng, shares in worlds(90):
        rows = labelled_rows(rng, sharpness, 120)
        samples = judged(rng, rng.choice(6, 800, p=shares), sharpness)
        hits.append(holds(estimate_shares(samples, rows, correction, 200, 0), shares))
    assert 0.92 <= np.mean(hits) <= 0.98


@pytest.mark.parametrize("leak", LEAKS)
def test_a_small_domain_is_held_though_its_few_rows_show_no_error(leak):
    """Drawing 50 rows again with replacement held the smallest share in half to four fifths."""
    hits = []
    for seed in range(100):
        texts, rows = small_domain(np.random.default_rng(seed), LEAKS[leak], 2000, 50)
        found = estimate_shares(texts, rows, "acc", 300, 0)
        hits.append(holds(found, SMALL))
    assert 0.91 <= np.mean(hits) <= 0.99
    assert np.mean(np.array(hits)[:, 2]) >= 0.85


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


@pytest.mark.parametrize("second", [None, 3.0], ids=["reader", "judge that errs"])
def test_an_audit_mends_errors_that_the_labelled_rows_do_not_show(second):
    hits, audited, corrected = [], [], []
    for rng, shares in worlds(90):
        truth = rng.choice(6, 2000, p=shares)
        leaning = judged(rng, truth, 3.0)
        leaning[:, 5] += 0.15  # on the samples alone
        leaning /= leaning.sum(axis=1, keepdims=True)
        if second is None:
            said, rows = np.eye(6)[truth], Labelled.oracle(6)
        else:
            said, rows = judged(rng, truth, second), labelled_rows(rng, second, 100)
        chances = audit_chances(leaning, 300)
        looked = rng.random(len(leaning)) < chances
        seen = np.full_like(leaning, np.nan)
        seen[looked] = said[looked]
        own = labelled_rows(rng, 3.0, 100)
        audit = Audit(seen, chances, rows)
        found = estimate_shares(leaning, own, "pacc", 200, 0, audit=audit)
        hits.append(holds(found, shares))
        audited.append(np.abs(found.share - shares).sum() / 2)
        alone = estimate_shares(leaning, own, "pacc", 100, 0)
        corrected.append(np.abs(alone.share - shares).sum() / 2)
    assert 0.92 <= np.mean(hits) <= 0.98
    assert np.mean(corrected) > 0.08  # what its rows say of it does not mend it
    assert np.mean(audited) < 0.035
    assert np.mean(np.array(audited) < corrected) > 0.95
