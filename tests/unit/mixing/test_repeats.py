"""Repeated rows: what passes are worth, by hand, and what a law makes of them."""

import math

import numpy as np
import pytest

from tests.unit.mixing.test_law import law
from versatune.mixing.forecast import follow
from versatune.mixing.law import Law, Record, advance, fit
from versatune.mixing.lookahead import Bounds, Outlook, best_shares
from versatune.mixing.repeats import HARM, Supply, marginal, worth

ONES = np.ones(2)
HALF = np.full(2, 0.5)


def repeating(repeats: float) -> Law:
    return Law(**{**vars(law(np.diag([4.0, 4.0]))), "repeats": repeats})


def test_the_first_pass_is_fresh_and_later_ones_fade_by_hand() -> None:
    """R* = 2, three passes: 1 + 1.1 * 2 (1 - e^-1) - 0.1 * 2."""
    np.testing.assert_allclose(worth(np.array([0.0, 0.4, 1.0]), 2.0), [0.0, 0.4, 1.0])
    assert worth(np.array([3.0]), 2.0)[0] == pytest.approx(1 + 2.2 * (1 - math.exp(-1)) - 0.2)
    np.testing.assert_allclose(marginal(np.array([0.0, 1.0]), 2.0), [1.0, 1.0])
    assert marginal(np.array([3.0]), 2.0)[0] == pytest.approx(1.1 * math.exp(-1) - 0.1)
    # Beyond 1 + R* ln((1 + h) / h) passes a row harms.
    end = 1 + 2 * math.log((1 + HARM) / HARM)
    assert marginal(np.array([end]), 2.0)[0] == pytest.approx(0.0)
    assert marginal(np.array([end + 1]), 2.0)[0] < 0


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
    plain = advance(known, ONES, HALF, 1.0)
    supplied = advance(known, ONES, HALF, 1.0, Supply(np.zeros(2), np.ones(2)))
    for one, other in zip(plain, supplied, strict=True):
        np.testing.assert_allclose(one, other)


def test_derivatives_hold_with_repeats_and_harm() -> None:
    known, h = repeating(1.0), 1e-6
    for alone in (3.0, 30.0):
        supply = Supply(np.array([0.5, 1.0]), np.full(2, alone))
        x = np.array([0.4, 0.6])
        end, slopes = advance(known, ONES, x, 1.0, supply)
        for j in range(2):
            up, down = (
                advance(known, ONES, x + s * h * np.eye(2)[j], 1.0, supply)[0] for s in (1, -1)
            )
            np.testing.assert_allclose(slopes[:, j], (up - down) / (2 * h), rtol=1e-4, atol=1e-8)
        # Far beyond its rows a domain gets worse than it was, and more of them would be worse yet.
        assert (end[1] > 1) == (alone == 30.0)


def test_a_small_domain_gets_fewer_rows_than_one_with_plenty() -> None:
    known = repeating(3.0)
    supply = Supply(np.zeros(2), np.array([60.0, 2.0]))

    def best(supply: Supply | None) -> np.ndarray:
        outlook = Outlook(
            known, ONES, 1.0, lambda loss: (float(loss.sum()), ONES), HALF, 0.0, supply=supply
        )
        return best_shares(outlook, Bounds(floor=0.01))

    np.testing.assert_allclose(best(None), HALF, atol=1e-3)
    found = best(supply)
    assert found[0] < 0.3
    tried = np.linspace(0.01, 0.99, 400)
    ends = [advance(known, ONES, np.array([x, 1 - x]), 1.0, supply)[0].sum() for x in tried]
    assert found[0] == pytest.approx(tried[int(np.argmin(ends))], abs=0.01)


def test_a_path_in_parts_sees_its_rows_again() -> None:
    known, passes = repeating(3.0), np.array([12.0, 12.0])
    whole = follow(known, ONES, [(HALF, 1.0)], passes)
    parts = follow(known, ONES, [(HALF, 0.25)] * 4, passes)
    # Learning comes before the rows wear out in parts, all of it alike in one: nearly the same.
    np.testing.assert_allclose(parts, whole, rtol=0.02)
    assert (whole > follow(known, ONES, [(HALF, 1.0)])).all()


def test_a_record_of_worn_rows_teaches_the_slope_of_fresh_ones() -> None:
    truth = repeating(2.0)
    supply = Supply(np.full(2, 3.0), np.full(2, 4.0))
    after = advance(truth, ONES, HALF, 0.05, supply)[0]
    error = np.full(2, 1e-4)
    vague = Law(**{**vars(repeating(2.0)), "slopes": np.diag([2.0, 2.0])})
    vague = vague.doubted(1.0, 0.0)
    known = Record(HALF, 0.05, ONES, after, error, supply.seen, supply.alone)
    blind = Record(HALF, 0.05, ONES, after, error)
    assert np.diag(fit(vague, [known], misfit=0.01).slopes) == pytest.approx([4.0, 4.0], rel=0.05)
    assert (np.diag(fit(vague, [blind], misfit=0.01).slopes) < 2.5).all()
    again = Record.from_json(known.to_json())
    np.testing.assert_array_equal(again.seen, supply.seen)
    assert Record.from_json(blind.to_json()).supply is None
