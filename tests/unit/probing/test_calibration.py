"""Calibration, against the logits that a table of right and wrong answers asks for."""

import numpy as np
import pytest

from versatune.probing.judges.calibration import apply, fit


def answers(right: dict[int, tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """By domain, rows that say the right domain and rows that say the other, with logits 2, 0."""
    said, labels = [], []
    for domain, (good, bad) in right.items():
        said += [domain] * good + [1 - domain] * bad
        labels += [domain] * (good + bad)
    return 2.0 * np.eye(2)[said], np.array(labels)


def test_the_temperature_makes_the_confidence_the_accuracy():
    """80 % are right: 2 / T is ln 4, however many rows a domain has."""
    temperature, offsets = fit(*answers({0: (80, 20), 1: (8, 2)}), offsets=False)
    assert temperature == pytest.approx(2 / np.log(4), rel=1e-3)
    assert offsets.tolist() == [0.0, 0.0]
    logits = np.array([[2.0, 0.0], [0.0, 2.0]])
    found = apply(logits, temperature, offsets)
    assert found == pytest.approx(np.array([[0.8, 0.2], [0.2, 0.8]]), abs=1e-3)


def test_domains_weigh_alike_whatever_their_rows():
    """90 % of 10 and 60 % of 100 rows are right: 2 / T is the logit of 75 %."""
    temperature, _ = fit(*answers({0: (9, 1), 1: (60, 40)}), offsets=False)
    assert 2 / temperature == pytest.approx(np.log(3), rel=2e-3)


def test_offsets_make_up_for_what_a_judge_says_too_often():
    """Domain 0: .9 say 0; domain 1: .4. So ln(.9/.4) and ln(.1/.6) are ± 2 / T + b_0 - b_1."""
    temperature, offsets = fit(*answers({0: (90, 10), 1: (6, 4)}), offsets=True)
    there, back = np.log(0.9 / 0.4), np.log(0.1 / 0.6)
    assert 2 / temperature == pytest.approx((there - back) / 2, rel=0.01)
    assert offsets[0] - offsets[1] == pytest.approx((there + back) / 2, rel=0.02)
    found = apply(2.0 * np.eye(2), temperature, offsets)[:, 0]
    assert found == pytest.approx([0.9 / 1.3, 0.1 / 0.7], abs=0.005)


def test_the_temperature_stays_within_bounds():
    """Always right, by a logit of 0.001: certainty would ask for a T of 0.0003, below e^-4."""
    temperature, _ = fit(0.001 * np.eye(2), np.array([0, 1]), offsets=False)
    assert temperature == pytest.approx(np.exp(-4))
