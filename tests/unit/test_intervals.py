"""Intervals against numbers worked by hand and published tables."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from versatune.intervals import (
    bonett_price,
    expm1,
    log_ratio,
    mean_stderr,
    ratio_interval,
    ratio_stderr,
    relative_change,
    share_stderr,
    t_interval,
    t_p_value,
    wilson,
)


def test_wilson_by_hand() -> None:
    # 8 of 10: (0.8 + 3.8415/20 ± 1.96 sqrt(0.016 + 3.8415/400)) / (1 + 0.38415)
    assert wilson(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    # Nothing of 10 is not "certainly never".
    assert wilson(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)


@given(n=st.integers(1, 10_000), right=st.integers(0, 10_000))
def test_wilson_holds_the_share_and_stays_within_0_and_1(n: int, right: int) -> None:
    share = min(right, n) / n
    low, high = wilson(share, n)
    assert 0 <= low <= share + 1e-12 and share - 1e-12 <= high <= 1
    mirrored = wilson(1 - share, n)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-9)


@pytest.mark.parametrize(("share", "n"), [(1.1, 10), (-0.1, 10), (0.5, 0), (math.nan, 3)])
def test_wilson_refuses_what_is_no_share(share: float, n: int) -> None:
    with pytest.raises(ValueError, match="a share of"):
        wilson(share, n)


def test_share_stderr_is_the_sample_deviation_of_zeros_and_ones() -> None:
    values = np.array([1.0, 1.0, 0.0, 1.0])
    assert share_stderr(0.75, 4) == pytest.approx(np.std(values, ddof=1) / 2)
    assert share_stderr(1.0, 1) == 0.0


def test_t_interval_with_three_values() -> None:
    # t(0.975, 2) = 4.3027
    assert t_interval(1.0, 0.1, 3) == pytest.approx((1 - 0.43027, 1 + 0.43027), abs=1e-5)
    assert all(map(math.isnan, t_interval(1.0, math.nan, 1)))


def test_four_of_sixty_that_become_right_may_be_chance() -> None:
    before, after = np.zeros(60), np.zeros(60)
    after[:4] = 1
    # p = 5/62, q = 1/62: 4/62 ± 1.96 sqrt((6/62 - (4/62)^2) / 62); McNemar's exact p is 0.125
    low, high, stderr = bonett_price(before, after)
    assert stderr == pytest.approx(math.sqrt((6 / 62 - (4 / 62) ** 2) / 62))
    assert (low, high) == pytest.approx((-0.0113, 0.1403), abs=1e-4)


def test_no_item_that_changes_is_not_certainly_no_change() -> None:
    # p = q = 1/12: 0 ± 1.96 sqrt(2/12 / 12)
    same = np.ones(10)
    assert bonett_price(same, same)[:2] == pytest.approx((-0.2310, 0.2310), abs=1e-4)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=80))
def test_the_interval_of_paired_shares_holds_the_change(items: list[tuple[int, int]]) -> None:
    before, after = np.array(items, np.float64).T
    low, high, _ = bonett_price(before, after)
    assert -1 <= low <= (after - before).mean() <= high <= 1
    assert bonett_price(after, before)[:2] == pytest.approx((-high, -low))


def test_paired_shares_are_of_the_same_items_and_zeros_and_ones() -> None:
    with pytest.raises(ValueError, match="same items"):
        bonett_price(np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match="zeros and ones"):
        bonett_price(np.ones(1), np.array([0.5]))


def test_log_ratio_by_hand() -> None:
    """Rows of 6 and 2 nats become 1 and 3: half of the loss is left."""
    ratio, stderr = log_ratio(np.array([6.0, 2.0]), np.array([1.0, 3.0]))
    assert ratio == pytest.approx(math.log(1 / 2))
    # parts of the sums: 1/4 - 3/4 and 3/4 - 1/4; sqrt(2/1 * (1/4 + 1/4))
    assert stderr == pytest.approx(1.0)


def test_a_relative_change_is_the_log_ratios_and_ends_above_minus_one() -> None:
    before, after = np.array([10.0, 20.0, 30.0]), np.array([9.0, 18.0, 30.0])
    value, low, high, stderr = relative_change(before, after)
    assert value == pytest.approx(-0.05)
    # Residuals against 0.95 of the first: -0.5, -1.0, 1.5; their squares sum to 3.5.
    assert stderr == pytest.approx(math.sqrt(3 / 2 * 3.5) / 60)
    half = 4.302653 * stderr / 0.95
    ends = (0.95 * math.exp(-half) - 1, 0.95 * math.exp(half) - 1)
    assert (low, high) == pytest.approx(ends, rel=1e-6)
    assert relative_change(np.array([100.0, 1.0]), np.array([1.0, 1.0]))[1] > -1
    assert math.isnan(relative_change(np.array([2.0]), np.array([1.0]))[1])


def test_log_ratio_where_nothing_is_known() -> None:
    one = np.array([2.0])
    assert log_ratio(one, one)[0] == 0 and math.isnan(log_ratio(one, one)[1])
    for before, after in ((one, one * 0), (one * 0, one)):
        assert all(map(math.isnan, log_ratio(before, after)))


def test_pairing_removes_what_rows_have_in_common() -> None:
    before = np.random.default_rng(0).uniform(1, 100, 50)
    assert log_ratio(before, before * 0.9) == pytest.approx((math.log(0.9), 0.0), abs=1e-12)


@given(st.lists(st.tuples(st.floats(0.1, 100), st.floats(0.1, 100)), min_size=2, max_size=12))
def test_log_ratio_turned_round_is_its_negative(rows: list[tuple[float, float]]) -> None:
    before, after = np.array(rows).T
    there, back = log_ratio(before, after), log_ratio(after, before)
    assert back == pytest.approx((-there[0], there[1]), abs=1e-9)


def test_the_log_ratios_error_is_that_of_drawing_the_rows_again() -> None:
    rng = np.random.default_rng(0)
    before = rng.uniform(20, 200, 400)
    after = before * rng.uniform(0.2, 0.6, 400)
    drawn = rng.integers(0, 400, size=(4000, 400))
    ratios = np.log(after[drawn].sum(axis=1) / before[drawn].sum(axis=1))
    assert log_ratio(before, after)[1] == pytest.approx(ratios.std(), rel=0.05)


@given(
    p=st.floats(0.05, 0.95),
    seed=st.integers(0, 1000),
)
def test_mean_and_stderr_agree_with_numpy(p: float, seed: int) -> None:
    values = (np.random.default_rng(seed).random(30) < p).astype(float)
    mean, stderr = mean_stderr(values)
    assert mean == values.mean()
    assert stderr == pytest.approx(share_stderr(mean, 30))


def test_the_interval_of_a_ratio_by_hand() -> None:
    """A baseline known exactly: the t-interval of the mean, divided."""
    values, baseline = np.array([-1.0, -2.0, -3.0]), np.full(3, -4.0)
    # t(2) = 4.3027, standard error 1 / sqrt(3)
    half = 4.3027 / math.sqrt(3) / 4
    assert ratio_interval(values, baseline) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-4)
    # far beyond what three seeds hold, 0.25 to 0.75
    assert half > 0.6


def test_pairs_in_one_ratio_have_it_for_certain() -> None:
    baseline = np.array([-3.5, -4.0, -3.0])
    assert ratio_interval(0.25 * baseline, baseline) == pytest.approx((0.25, 0.25))


@given(st.lists(st.tuples(st.floats(-2, -0.1), st.floats(-2, -1.5)), min_size=3, max_size=9))
def test_the_ends_of_the_ratio_are_where_the_t_test_ends(pairs: list[tuple[float, float]]) -> None:
    values, baseline = np.array(pairs).T
    for end in ratio_interval(values, baseline):
        low, high = t_interval(*mean_stderr(values - end * baseline), len(values))
        assert min(abs(low), abs(high)) == pytest.approx(0, abs=1e-5)


def test_a_ratio_to_what_may_be_nothing_has_no_interval() -> None:
    baseline = np.array([-1.0, 0.5, -1.0])
    assert all(map(math.isnan, ratio_interval(baseline, baseline)))
    assert all(map(math.isnan, ratio_interval(baseline[:1], baseline[:1])))


def test_two_items_and_two_seeds_are_enough_for_an_error() -> None:
    assert share_stderr(0.5, 2) == 0.5
    # One degree of freedom: t = 12.7062; the mean of -1 and -3 has the error 1.
    half = 12.7062 / 4
    found = ratio_interval(np.array([-1.0, -3.0]), np.full(2, -4.0))
    assert found == pytest.approx((0.5 - half, 0.5 + half), abs=1e-4)


def test_a_small_baseline_that_is_known_exactly_has_an_interval() -> None:
    half = 4.3027 / math.sqrt(3) / 0.5
    found = ratio_interval(np.array([-1.0, -2.0, -3.0]), np.full(3, -0.5))
    assert found == pytest.approx((4 - half, 4 + half), abs=1e-3)
    assert all(map(math.isnan, ratio_interval(np.array([1.0, 2.0, 3.0]), np.zeros(3))))


def test_paired_shares_are_of_one_row_of_items() -> None:
    for shape in ((2, 2), (0,)):
        with pytest.raises(ValueError, match="same items"):
            bonett_price(np.ones(shape), np.ones(shape))


def test_an_exponent_beyond_floats_is_infinite() -> None:
    assert expm1(700.0) == math.expm1(700.0) < math.inf
    assert expm1(701.0) == math.inf and expm1(1e6) == math.inf


def test_p_of_a_t_test_by_published_tables() -> None:
    for t, df, p in ((12.7062, 1, 0.05), (1.0, 1, 0.5), (2.2281, 10, 0.05), (3.1693, 10, 0.01)):
        assert t_p_value(t, 1.0, df) == pytest.approx(p, rel=1e-3)
        assert t_p_value(-2 * t, 2.0, df) == pytest.approx(p, rel=1e-3)
    assert t_p_value(0.0, 0.5, 3) == pytest.approx(1.0)
    for mean, stderr, df in ((1.0, 0.0, 5), (1.0, math.nan, 5), (1.0, 1.0, 0)):
        assert math.isnan(t_p_value(mean, stderr, df))


def test_the_error_of_a_ratio_of_sums_by_hand() -> None:
    """Of rows that weigh alike it is the mean's; else what is left over counts."""
    values = np.array([1.0, 2.0, 6.0])
    assert ratio_stderr(values, np.ones(3)) == pytest.approx(mean_stderr(values)[1])
    # 2 of 4: 2 - 0.5 * 1 and 0 - 0.5 * 3; sqrt(2/1 * 4.5) / 4
    assert ratio_stderr(np.array([2.0, 0.0]), np.array([1.0, 3.0])) == pytest.approx(0.75)
    assert ratio_stderr(np.array([2.0]), np.ones(1)) == 0.0
    assert ratio_stderr(np.array([2.0, 1.0]), np.zeros(2)) == 0.0


def test_one_item_and_two_values_are_enough() -> None:
    # 1 of 1: (1 + 3.8415 / 2 - 1.96 sqrt(3.8415 / 4)) / (1 + 3.8415) = 1 / 4.8415
    assert wilson(1.0, 1) == pytest.approx((0.2065, 1.0), abs=1e-4)
    assert wilson(0.0, 1) == pytest.approx((0.0, 0.7935), abs=1e-4)
    assert mean_stderr(np.array([1.0, 3.0])) == (2.0, 1.0)
    mean, stderr = mean_stderr(np.array([3.0]))
    assert mean == 3.0 and math.isnan(stderr)
    assert t_interval(2.0, 1.0, 2) == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-4)


def test_losses_of_less_than_a_nat_have_a_ratio() -> None:
    """Parts of the sums 1/4 and 3/4, then 1/2 each: sqrt(2 (1/16 + 1/16))."""
    ratio, stderr = log_ratio(np.array([0.1, 0.3]), np.array([0.1, 0.1]))
    assert ratio == pytest.approx(math.log(0.5)) and stderr == pytest.approx(0.5)
