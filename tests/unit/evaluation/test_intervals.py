"""Intervals against numbers worked by hand and published tables."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from versatune.evaluation.intervals import (
    bootstrap_mean,
    mean_stderr,
    paired_ratio_change,
    share_stderr,
    t_interval,
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
    assert t_interval(1.0, math.nan, 1) == (-math.inf, math.inf)


def test_paired_change_of_a_ratio() -> None:
    """Two rows of 2 and 4 tokens lose 1 and 3 nats: 4/6 a token; by hand the stderr too."""
    before, after = np.array([5.0, 8.0]), np.array([4.0, 5.0])
    change, stderr = paired_ratio_change(before, after, np.array([2.0, 4.0]))
    assert change == pytest.approx(-4 / 6)
    # residuals -1 + 4/3 = 1/3 and -3 + 8/3 = -1/3; sqrt(2/1 * 2/9) / 6
    assert stderr == pytest.approx(math.sqrt(4 / 9) / 6)
    with pytest.raises(ValueError, match="no tokens"):
        paired_ratio_change(before, after, np.zeros(2))


def test_pairing_removes_what_rows_have_in_common() -> None:
    rng = np.random.default_rng(0)
    before = rng.uniform(1, 100, 50)
    _, stderr = paired_ratio_change(before, before + 0.5, np.ones(50))
    assert stderr == pytest.approx(0.0, abs=1e-9)
    assert mean_stderr(before)[1] > 1


def test_bootstrap_is_seeded_and_near_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(2.0, 1.0, 200)
    mean, stderr = mean_stderr(values)
    low, high = bootstrap_mean(values, seed=3)
    assert (low, high) == bootstrap_mean(values, seed=3)
    assert low == pytest.approx(mean - 1.96 * stderr, abs=0.02)
    assert high == pytest.approx(mean + 1.96 * stderr, abs=0.02)


@given(
    p=st.floats(0.05, 0.95),
    seed=st.integers(0, 1000),
)
def test_mean_and_stderr_agree_with_numpy(p: float, seed: int) -> None:
    values = (np.random.default_rng(seed).random(30) < p).astype(float)
    mean, stderr = mean_stderr(values)
    assert mean == values.mean()
    assert stderr == pytest.approx(share_stderr(mean, 30))
