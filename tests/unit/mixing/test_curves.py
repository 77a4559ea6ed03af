"""References' curves: what they reached, and when to measure."""

import numpy as np
import pytest

from versatune.mixing.curves import Point, measured_at, points_of, reached, still_falling


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
    assert measured_at(8, 4) == (0, 1, 2, 4, 8)
    assert measured_at(8, 2) == (0, 1, 8)
    assert measured_at(8, 1) == (0, 8)
    assert measured_at(1, 5) == (0, 1)
    assert measured_at(8, 0) == ()


def test_a_minimum_beside_an_end_is_smoothed_too() -> None:
    """(3 + 2 * 1 + 2) / 4, and of two measurements the lower one as it is."""
    assert reached(np.array([3.0, 1.0, 2.0])) == (1.75, 1)
    assert reached(np.array([3.0, 2.5, 1.0, 2.0])) == (1.625, 2)
    assert reached(np.array([3.0, 2.0])) == (2.0, 1)
    assert reached(np.array([3.0])) == (3.0, 0)


def test_the_last_part_is_at_least_a_tenth_of_the_learning() -> None:
    """The measurement at nine tenths begins it; what fell before does not count."""
    losses = np.array([2.0, 1.001, 1.0])
    assert not still_falling(losses, np.array([0.0, 9.0, 10.0]))
    assert still_falling(losses, np.array([0.0, 9.01, 10.0]))
    # All within the last tenth: the whole run counts.
    assert still_falling(np.array([2.0, 1.0]), np.array([5.0, 5.1]))
    assert not still_falling(np.array([2.0]), np.array([1.0]))
    # Lower on the way than at the end, however fast the last part falls.
    assert not still_falling(np.array([2.0, 1.0, 3.0, 1.5]), np.array([0.0, 1.0, 2.0, 3.0]))


def test_whether_a_run_still_falls_does_not_hang_on_the_unit_of_learning() -> None:
    losses = np.array([5.467, 5.437, 5.407])
    for unit in (1e-3, 1.0, 1e3):
        assert still_falling(losses, unit * np.array([0.0, 1.0, 2.0]))


@pytest.mark.parametrize(("last", "falling"), [(0.979, True), (0.981, False)])
def test_half_as_much_again_must_take_off_two_per_cent(last: float, falling: bool) -> None:
    """The last half of the learning took off ln(1 / last): half as much again of all would take
    off as much. The first half took off ln 4, so that this is no average speed."""
    losses = np.array([4.0, 1.0, last])
    assert still_falling(losses, np.array([0.0, 1.0, 2.0])) is falling


def test_the_parts_asked_for_are_those_that_count() -> None:
    losses, learning = np.array([4.0, 1.0, 0.97]), np.array([0.0, 1.0, 2.0])
    assert still_falling(losses, learning, part=0.03) and not still_falling(losses, learning, 0.04)
    even = np.array([1.0, 0.999, 0.998])  # half as much again takes off 0.1 %
    assert not still_falling(even, learning)
    assert still_falling(even, learning, least=0.0009)


def test_curves_are_read_where_there_are_some() -> None:
    point = {"step": 4, "learning": 2.5, "losses": {"law": 1.5}, "rate": 0.5}
    told = {"law": {"curve": [point]}, "code": {"curve": []}, "medicine": {"step": None}}
    found = points_of({"domains": told})
    assert list(found) == ["law"]
    (read,) = found["law"]
    assert read == Point(step=4, learning=2.5, losses={"law": 1.5}, rate=0.5)
    assert (read.stderrs, read.passes, read.passes_by_domain) == ({}, 0.0, {})
