"""Sums by domain, against numbers worked out by hand."""

import numpy as np

from versatune.mixing import domain_sums
from versatune.mixing.domain_sums import domain_maxima, domain_squares

STARTS = np.array([0, 3, 3, 5])
LENGTHS = np.array([2, 3, 4, 5, 60_000], dtype=np.int32)
SUPERVISED = np.array([1, 1, 2, 5, 7], dtype=np.int32)


def test_sums_squares_and_maxima_of_an_empty_domain_are_0() -> None:
    assert domain_sums.domain_sums(LENGTHS, STARTS).tolist() == [9, 0, 60_005]
    assert domain_maxima(LENGTHS, STARTS).tolist() == [4, 0, 60_000]
    # 60,000 squared is more than int32 holds.
    assert domain_squares(LENGTHS, STARTS).tolist() == [4 + 9 + 16, 0, 25 + 3_600_000_000]


def test_squares_are_added_up_over_parts(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(domain_sums, "_AT_ONCE", 2)
    assert domain_squares(LENGTHS, STARTS).tolist() == [29, 0, 3_600_000_025]
