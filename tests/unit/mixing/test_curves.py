"""References' curves: what they reached, and when to measure."""

import numpy as np
import pytest

from versatune.mixing.curves import measured_at, reached, still_falling


def test_what_a_run_reached() -> None:
    assert reached(np.array([3.0, 2.0, 1.5])) == (1.5, 2)
    assert reached(np.array([3.0, 4.0, 5.0])) == (3.0, 0)
    # A minimum on the way is smoothed: (2.0 + 2 * 1.6 + 1.8) / 4.
    value, at = reached(np.array([3.0, 2.0, 1.6, 1.8, 2.2]))
    assert value == pytest.approx(1.75) and at == 2


def test_the_smooth_minimum_is_not_the_least_of_noise() -> None:
    rng = np.random.default_rng(0)
    flat = [1 + 0.05 * rng.standard_normal(12) for _ in range(400)]
    inside = [x for x in flat if 0 < np.argmin(x) < x.size - 1]
    least, smooth = np.mean([x.min() for x in inside]), np.mean([reached(x)[0] for x in inside])
    assert least < 0.93 and smooth > least + 0.03


@pytest.mark.parametrize(
    ("losses", "falling"),
    [([2.0, 1.5, 1.2, 1.0], True), ([2.0, 1.2, 1.002, 1.0], False), ([2.0, 1.0, 1.1, 1.2], False)],
)
def test_a_run_that_was_cut_off_is_known(losses: list[float], falling: bool) -> None:
    assert still_falling(np.array(losses), np.array([0.0, 1.0, 2.0, 3.0])) is falling


def test_a_run_that_learnt_little_and_did_not_slow_down_is_still_falling() -> None:
    """Four steps took off 1.1 %, evenly: the reference is far from what the domain gives."""
    learning = np.array([0.0, 1.0, 2.0])
    assert still_falling(np.array([5.467, 5.437, 5.407]), learning)
    # three quarters of it in the first half: it slows down
    assert not still_falling(np.array([5.467, 5.419, 5.407]), learning)
    # even, but so little that it is no learning: a rate of almost 0
    assert not still_falling(np.array([5.467, 5.466, 5.465]), learning)


def test_all_domains_are_measured_at_doublings_that_are_paid_for() -> None:
    assert measured_at(6, 10) == (0, 1, 2, 4, 6)
    assert measured_at(8, 2) == (0, 1, 8)
    assert measured_at(8, 1) == (0, 8)
    assert measured_at(1, 5) == (0, 1)
    assert measured_at(8, 0) == ()
