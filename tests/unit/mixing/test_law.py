"""The mixing law: by hand, its inverse, its derivatives, and what a fit finds again."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from versatune.mixing.law import (
    Law,
    Record,
    advance,
    fit,
    gained,
    reducible,
    without_references,
)


def law(slopes: Any, exponent: float = 0.5, stderr: float = 0.1) -> Law:
    array = np.array(slopes, dtype=np.float64)
    k = array.shape[0]
    return Law.from_json(
        {
            "slopes": array.tolist(),
            "stderr": np.full((k, k), stderr).tolist(),
            "exponent": [exponent] * k,
            "floor": [0.0] * k,
            "at": [1.0] * k,
        }
    )


def test_by_hand() -> None:
    """Own rows: P = 2 * 1 / 0.5 = 4, w = 5, y = 5^-0.5. Forgetting: w = exp(-1 / 0.5)."""
    end, _ = advance(law([[2.0, 0.0], [-1.0, 0.0]]), np.ones(2), np.array([1.0, 0.0]), 1.0)
    np.testing.assert_allclose(end, [5**-0.5, math.exp(1.0)])


def test_what_is_taught_and_forgotten_settles() -> None:
    """With P = N the exposure stays 1 and the loss where it is, for however long."""
    steady = law([[3.0, -1.0], [0.0, 1.0]])
    end, _ = advance(steady, np.ones(2), np.array([0.25, 0.75]), 50.0)
    assert end[0] == pytest.approx(1.0)


@given(st.integers(0, 10_000), st.floats(0.01, 3.0))
def test_derivatives(seed: int, learning: float) -> None:
    rng = np.random.default_rng(seed)
    some = law(rng.normal(0.5, 1.5, (3, 3)), float(rng.uniform(0.2, 2)))
    y, x, h = rng.uniform(0.3, 2, 3), rng.dirichlet(np.ones(3)), 1e-6
    end, slopes = advance(some, y, x, learning)
    assert (end > 0).all()
    for j in range(3):
        step = h * np.eye(3)[j]
        up, down = (advance(some, y, x + s, learning)[0] for s in (step, -step))
        np.testing.assert_allclose(slopes[:, j], (up - down) / (2 * h), rtol=1e-3, atol=1e-6)


@given(st.floats(0.1, 5), st.floats(0.01, 4), st.floats(0.2, 3))
def test_gained_is_the_inverse_of_learning(slope: float, learning: float, exponent: float) -> None:
    own = law([[slope]], exponent)
    end, _ = advance(own, np.ones(1), np.ones(1), learning)
    found = gained(np.ones(1), end, np.array([exponent]))[0]
    assert found == pytest.approx(slope * learning, rel=1e-6)


def test_learning_slows_down_as_it_goes_and_two_halves_are_one_whole() -> None:
    one = law([[2.0]])
    half, _ = advance(one, np.ones(1), np.ones(1), 0.5)
    whole, _ = advance(one, half, np.ones(1), 0.5)
    np.testing.assert_allclose(whole, advance(one, np.ones(1), np.ones(1), 1.0)[0])


AMOUNT = 0.02


def records(truth: Law, mixes: Any, noise: float, rng: np.random.Generator) -> list[Record]:
    y, found = np.full(truth.floor.size, 1.0), []
    for mix in mixes:
        end, _ = advance(truth, y, np.array(mix), AMOUNT)
        seen = end * np.exp(noise * rng.standard_normal(end.size))
        found.append(Record(np.array(mix), AMOUNT, y, seen, np.full(end.size, max(noise, 1e-4))))
        y = end
    return found


def test_a_fit_finds_the_slopes_again() -> None:
    rng = np.random.default_rng(0)
    truth = law([[2.0, -0.5, 0.2], [0.1, 1.0, 0.3], [0.4, -0.2, 3.0]])
    prior = law([[1.0, -0.1, 0.1], [0.1, 1.0, 0.1], [0.1, -0.1, 1.0]], stderr=2.0)
    seen = records(truth, rng.dirichlet(np.ones(3), 60), 0.0, rng)
    found = fit(prior, seen, misfit=0.0)
    np.testing.assert_allclose(found.slopes, truth.slopes, atol=0.15)


def test_without_records_or_with_noise_alone_the_prior_stays() -> None:
    prior = law([[1.0, -0.2], [0.1, 2.0]], stderr=0.05)
    assert np.allclose(fit(prior, []).slopes, prior.slopes)
    rng = np.random.default_rng(1)
    noisy = records(law([[5.0, 0.0], [0.0, 0.1]]), [[0.5, 0.5]] * 2, 0.0, rng)
    noisy = [Record(r.weights, r.learning, r.before, r.after, np.full(2, 50.0)) for r in noisy]
    np.testing.assert_allclose(fit(prior, noisy).slopes, prior.slopes, atol=1e-3)


def test_the_more_certain_a_change_is_the_more_it_counts() -> None:
    prior, rng = law([[1.0, 0.0], [0.0, 1.0]], stderr=0.5), np.random.default_rng(2)
    seen = records(law([[3.0, 0.0], [0.0, 1.0]]), [[1.0, 0.0]], 0.0, rng)[0]
    found = [
        fit(prior, [Record(seen.weights, AMOUNT, seen.before, seen.after, np.full(2, error))])
        for error in (0.1, 0.01, 0.0001)
    ]
    own = [f.slopes[0, 0] for f in found]
    assert own[0] < own[1] < own[2] < 3.2
    spread = [f.covariance[0, 0, 0] for f in found]
    assert spread[0] > spread[1] > spread[2]


def test_a_first_round_that_forgets_gives_a_prior_that_forgets() -> None:
    first = Record(
        np.array([0.8, 0.1, 0.1]), 1.0, np.ones(3), np.array([0.5, 1.1, 1.2]), np.ones(3)
    )
    found = without_references(first, np.zeros(3), np.full(3, 0.5))
    assert (np.diag(found.slopes) > 0).all()
    assert found.slopes[1, 0] < 0 and found.slows[1, 0] == 0


def test_json_round_trip_and_a_floor_that_was_passed() -> None:
    some = law([[1.0, -0.2], [0.1, 2.0]])
    again = Law.from_json(json.loads(json.dumps(some.to_json())))
    for name, value in vars(some).items():
        np.testing.assert_array_equal(getattr(again, name), value)
    record = Record(np.ones(1), 0.5, np.ones(1), np.ones(1), np.ones(1))
    assert Record.from_json(json.loads(json.dumps(record.to_json()))).learning == 0.5
    np.testing.assert_allclose(reducible(np.array([1.0]), np.array([2.0])), [0.02])
