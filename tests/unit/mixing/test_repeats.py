"""Repeated rows: what passes are worth, by hand, and what a law makes of them."""

import math

import numpy as np
import pytest

from tests.helpers.laws import law
from versatune.mixing.law import Law
from versatune.mixing.lookahead import Bounds, Outlook, best_shares
from versatune.mixing.repeats import USUAL_REPEATS, Supply, marginal, worth, worth_by_log
from versatune.mixing.shares import Array

ONES = np.ones(2)
HALF = np.full(2, 0.5)


def repeating(repeats: float) -> Law:
    return law([4.0, 4.0], repeats=repeats)


def test_the_first_pass_is_fresh_and_later_ones_fade_by_hand() -> None:
    """R* = 2, three passes: 1 + 2 (1 - e^-1)."""
    np.testing.assert_allclose(worth(np.array([0.0, 0.4, 1.0]), 2.0), [0.0, 0.4, 1.0])
    assert worth(np.array([3.0]), 2.0)[0] == pytest.approx(1 + 2 * (1 - math.exp(-1)))
    np.testing.assert_allclose(marginal(np.array([0.0, 1.0]), 2.0), [1.0, 1.0])
    assert marginal(np.array([3.0]), 2.0)[0] == pytest.approx(math.exp(-1))


def test_the_worth_is_the_integral_of_what_each_pass_gives() -> None:
    s = np.linspace(0, 20, 200_001)
    grown = np.concatenate([[0.0], np.cumsum((marginal(s[1:], 3.0) + marginal(s[:-1], 3.0)) / 2)])
    np.testing.assert_allclose(worth(s, 3.0), grown * (s[1] - s[0]), atol=1e-3)


def test_shares_of_fresh_rows_by_hand() -> None:
    """Seen once, 4 passes alone: half of it is two more passes, worth U(3) - U(1)."""
    supply = Supply(np.array([1.0, 3.0]), np.array([4.0, 0.0]))
    fresh, slope = supply.fresh(HALF, 2.0)
    wanted = (worth(np.array([3.0]), 2.0) - 1)[0] / 4
    assert fresh[0] == pytest.approx(wanted)
    assert slope[0] == pytest.approx(marginal(np.array([3.0]), 2.0)[0])
    # Where nothing more is drawn over rows, they stay as worn as they are.
    assert fresh[1] == pytest.approx(0.5 * marginal(np.array([3.0]), 2.0)[0])
    np.testing.assert_allclose(supply.after(HALF).seen, [3.0, 3.0])
    np.testing.assert_allclose(supply.part(0.25).alone, [1.0, 0.0])


def test_enough_rows_change_nothing() -> None:
    known = repeating(3.0)
    plain = known.ends(HALF, 1.0)
    supplied = known.ends(HALF, 1.0, Supply(np.zeros(2), np.ones(2)))
    for one, other in zip(plain, supplied, strict=True):
        np.testing.assert_allclose(one, other)


def test_a_small_domain_gets_fewer_rows_than_one_with_plenty() -> None:
    known = repeating(3.0)
    supply = Supply(np.zeros(2), np.array([60.0, 2.0]))

    def best(supply: Supply | None) -> np.ndarray:
        def total(loss: Array) -> tuple[Array, Array]:
            return loss.sum(-1), np.ones_like(loss)

        outlook = Outlook(known, 1.0, total, HALF, 0.0, supply=supply)
        return best_shares(outlook, Bounds(floor=0.01))

    np.testing.assert_allclose(best(None), HALF, atol=1e-3)
    found = best(supply)
    assert found[0] < 0.3
    tried = np.linspace(0.01, 0.99, 400)
    ends = [known.ends(np.array([x, 1 - x]), 1.0, supply)[0][0].sum() for x in tried]
    assert found[0] == pytest.approx(tried[int(np.argmin(ends))], abs=0.01)


def test_the_derivative_by_the_number_of_repeats_is_that_of_the_worth() -> None:
    passes, h = np.array([0.0, 0.7, 1.0, 1.5, 4.0, 40.0]), 1e-5
    for repeats in (0.5, 3.0):
        up, down = (worth(passes, repeats * math.exp(by)) for by in (h, -h))
        np.testing.assert_allclose(worth_by_log(passes, repeats), (up - down) / (2 * h), atol=1e-8)


@pytest.mark.parametrize("alone", [0.5, 3.0])
def test_the_derivative_of_fresh_shares_is_that_of_their_change(alone: float) -> None:
    """Also of less than one pass; a half of it seen before leaves the rest fresh."""
    supply, h = Supply(np.array([0.8, 2.0]), np.full(2, alone)), 1e-6
    up, down = (supply.fresh(HALF + by, 2.0)[0] for by in (h, -h))
    np.testing.assert_allclose(supply.fresh(HALF, 2.0)[1], (up - down) / (2 * h), rtol=1e-6)
    # By hand: half of the passes alone, after 0.8 of one.
    seen = np.array([0.8 + alone / 2])
    assert supply.fresh(HALF, 2.0)[0][0] == pytest.approx((worth(seen, 2.0)[0] - 0.8) / alone)


def test_repeats_may_differ_by_domain() -> None:
    found = worth(np.array([3.0, 3.0]), np.array([1.0, 4.0]))
    by_hand = [1 + 1 - math.exp(-2), 1 + 4 * (1 - math.exp(-0.5))]
    np.testing.assert_allclose(found, by_hand)
    assert USUAL_REPEATS == 30.0
