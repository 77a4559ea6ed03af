"""Sums and maxima by domain."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from versatune.mixing.shares import Array

Counts = npt.NDArray[np.int64]

_AT_ONCE = 1 << 20
"""Values that are turned into larger numbers at a time: a store may have a hundred million rows."""


def sums_of(domain: Counts, values: npt.NDArray[np.int32], k: int) -> Counts:
    """The sum of ``values`` for each of ``k`` domains; ``domain``: whose each one is."""
    return np.bincount(domain, weights=values, minlength=k).astype(np.int64)


def domain_sums(values: npt.NDArray[np.int32], starts: npt.NDArray[np.int64]) -> Counts:
    """Sums of values that lie domain by domain, from ``starts``; shape (k,)."""
    return np.array([values[a:b].sum(dtype=np.int64) for a, b in pairwise(starts)], dtype=np.int64)


def domain_squares(values: npt.NDArray[np.int32], starts: npt.NDArray[np.int64]) -> Counts:
    """The same of squares."""
    return np.array(
        [
            sum(
                int(np.square(values[at : min(at + _AT_ONCE, b)], dtype=np.int64).sum())
                for at in range(a, b, _AT_ONCE)
            )
            for a, b in pairwise(starts.tolist())
        ],
        dtype=np.int64,
    )


def domain_maxima(values: npt.NDArray[np.int32], starts: npt.NDArray[np.int64]) -> Array:
    """The same of maxima; 0 for an empty domain."""
    return np.array(
        [values[a:b].max(initial=0) for a, b in pairwise(starts)],
        dtype=np.float64,
    )
