"""Shares for the rest of training: optimal by search, cautious, within bounds and limits."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.laws import law
from versatune.mixing.law import Law
from versatune.mixing.lookahead import Bounds, Outlook, best_shares
from versatune.mixing.shares import Array

Q = np.full(3, 1 / 3)


def mean(loss: Array) -> tuple[Array, Array]:
    return loss.mean(-1), np.full(loss.shape, 1 / loss.shape[-1])


def outlook(known: Law, caution: float = 0.0, **more: Any) -> Outlook:
    given: dict[str, Any] = {
        "learning": 1.0, "anchor": Q, "objective": mean, **more
    }  # fmt: skip
    return Outlook(law=known, caution=caution, **given)


WIDE = law([4.0, 1.0, 0.3], unsure=0.05)
WIDER = law([4.0, 1.0, 0.3], unsure=1.5)


def test_the_best_shares_are_the_best_of_many() -> None:
    known = outlook(WIDE)
    found = best_shares(known, Bounds())
    tried = np.random.default_rng(0).dirichlet(np.ones(3), 4000)
    least = min(known.expected(x)[0] for x in tried)
    assert known.expected(found)[0] <= least + 1e-4


def test_what_is_expected_is_the_mean_over_all_laws_that_could_be_true() -> None:
    known, x, h = outlook(WIDER), np.array([0.5, 0.3, 0.2]), 1e-6
    value, slopes = known.expected(x)
    assert value == pytest.approx(WIDER.ends(x, 1.0)[0].mean())
    assert abs(value - mean(known.forecast(x)[0])[0]) > 0.01  # not what the likeliest law says
    for i, slope in enumerate(slopes):
        step = h * np.eye(3)[i]
        found = (known.expected(x + step)[0] - known.expected(x - step)[0]) / (2 * h)
        assert slope == pytest.approx(found, rel=1e-4)


def test_no_law_that_goes_mad_decides() -> None:
    """A draw by which a domain's loss explodes counts as the highest end there is."""
    numbers = WIDE.numbers.copy()
    numbers[3, 0] = [-14.0, -14.0, 6.0, 3.0, -8.0, 0.0, 3.4, -14.0]
    numbers[3, 0, 1] = 6.0
    mad = outlook(Law(numbers, WIDE.base, WIDE.least))
    assert mad.expected(Q)[0] <= outlook(WIDE).expected(Q)[0] + 3.0 / 3 / len(numbers)


def test_without_signal_the_shares_are_exactly_those_to_stay_at() -> None:
    anchor = np.array([0.5, 0.3, 0.2])
    same = law([1e-6] * 3, unsure=0.3)
    assert (best_shares(outlook(same, 1.0, anchor=anchor), Bounds()) == anchor).all()
    # A difference that is smaller than its standard error moves nothing either.
    hint = law([1.0, 1.0, 1.1], unsure=3.0)
    assert (best_shares(outlook(hint, 1.0), Bounds()) == Q).all()


def test_the_best_shares_lose_as_much_in_standard_error_as_they_gain() -> None:
    """Where all shares are within their bounds, the slopes of both together are alike."""
    known = outlook(law([4.0, 2.0, 2.0], unsure=0.2), 1.0)
    found = best_shares(known, Bounds())
    away, spread = found - Q, known.gradient_variance()
    assert np.abs(away).max() > 0.03
    gained = known.expected(found)[1]
    slopes = gained + spread * away / np.sqrt(spread @ away**2)
    assert np.ptp(slopes) < 1e-3 * np.ptp(gained)


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_more_caution_never_goes_further(seed: int) -> None:
    rng = np.random.default_rng(seed)
    known = law(rng.uniform(0.3, 4, 3), unsure=float(rng.uniform(0.1, 1)))
    far = [
        float(np.abs(best_shares(outlook(known, c), Bounds()) - Q).sum()) for c in (0, 0.5, 2, 20)
    ]
    assert all(a >= b - 2e-3 for a, b in pairwise(far))
    assert far[-1] < far[0] or far[0] < 1e-3


def target(loss: Array) -> tuple[Array, Array]:
    return loss[..., 0], np.broadcast_to(np.eye(loss.shape[-1])[0], loss.shape)


@pytest.mark.parametrize("limit", [1.0, 1.05])
def test_limits_hold_at_the_end_and_the_target_gets_the_rest(limit: float) -> None:
    """The others forget under the target's rows; each gets just what keeps it at its limit."""
    known = law([3.0, 4.0, 4.0], nu=[0.0, 1.0, 3.0])
    limits = np.array([np.inf, limit, limit])
    found = outlook(known, objective=target, limits=limits)
    shares = best_shares(found, Bounds(0.001, 1.0, (0,), 0.1, 0.99))
    ends = found.forecast(shares)[0]
    np.testing.assert_allclose(ends[1:], limit, atol=5e-3)
    assert shares[2] > shares[1] > 0 and shares[0] > 0.7


def test_what_cannot_be_kept_is_kept_as_well_as_it_can() -> None:
    """Limits that no shares meet: the target's share goes to its lower bound."""
    known = law([3.0, 0.1], nu=[0.0, 5.0])
    limits, half = np.array([np.inf, 0.5]), np.full(2, 0.5)
    found = outlook(known, objective=target, limits=limits, anchor=half)
    shares = best_shares(found, Bounds(0.0, 1.0, (0,), 0.4, 0.9))
    assert shares[0] == pytest.approx(0.4, abs=0.01)


@given(
    st.lists(st.floats(0, 1), min_size=4, max_size=4).filter(lambda w: sum(w) > 1e-3),
    st.floats(0, 0.1),
)
def test_bounds_keep_shares_and_the_targets_part(weights: list[float], floor: float) -> None:
    found = Bounds(floor, 0.9, (1, 2), 0.5, 0.8).keep(np.array(weights) / sum(weights))
    assert found.sum() == pytest.approx(1)
    assert 0.5 - 1e-9 <= found[1] + found[2] <= 0.8 + 1e-9
    assert (found >= floor - 1e-9).all()


def test_others_keep_a_part_of_what_the_targets_leave() -> None:
    """0.4 is left: at least 0.08 and 0.12 of it; what remains keeps its ratio."""
    bounds = Bounds(0.01, 1.0, (0,), 0.2, 0.6, parts=(0.0, 0.2, 0.3, 0.0))
    np.testing.assert_allclose(
        bounds.keep(np.array([0.6, 0.01, 0.2, 0.19])), [0.6, 0.08, 0.16410256, 0.15589744]
    )
    np.testing.assert_allclose(
        bounds.keep(np.array([0.6, 0.1, 0.06, 0.24])), [0.6, 0.08235294, 0.12, 0.19764706]
    )


def test_each_share_can_have_bounds_of_its_own() -> None:
    """Without targets: 0.1 and 0.3 are the bounds, the third takes the rest."""
    bounds = Bounds((0.1, 0.0, 0.2), (0.5, 0.3, 1.0))
    np.testing.assert_allclose(bounds.keep(np.array([0.05, 0.6, 0.35])), [0.1, 0.3, 0.6])
    # Of the others' 0.4 the second has 0.15 at most, and the third 0.1 at least.
    bounds = Bounds((0.0, 0.0, 0.1, 0.0), (1.0, 0.15, 1.0, 1.0), (0,), 0.2, 0.6)
    np.testing.assert_allclose(
        bounds.keep(np.array([0.6, 0.3, 0.02, 0.08])), [0.6, 0.15, 0.1, 0.15]
    )


def test_where_all_are_targets_they_share_all() -> None:
    given = np.array([0.5, 0.3, 0.2])
    np.testing.assert_allclose(Bounds(0.0, 1.0, (0, 1, 2), 0.1, 0.8).keep(given), given)


def test_a_targets_own_bound_is_that_of_the_targets_together() -> None:
    """``cap`` is of the others: a target may have more, the others what it leaves them."""
    found = Bounds(0.0, 0.15, (0, 1), 0.5, 0.75).keep(np.array([0.7, 0.1, 0.15, 0.05]))
    np.testing.assert_allclose(found, [0.65625, 0.09375, 0.15, 0.1])
