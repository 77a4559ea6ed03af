"""Sums and maxima by domain."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from versatune.mixing.shares import Array

Counts = npt.NDArray[np.int64]


def sums_of(domain: Counts, values: npt.NDArray[np.int32], k: int) -> Counts:
    """The sum of ``values`` for each of ``k`` domains; ``domain``: whose each one is."""
    return np.bincount(domain, weights=values, minlength=k).astype(np.int64)


def domain_sums(values: npt.NDArray[np.int32], starts: npt.NDArray[np.int64]) -> Counts:
    """Sums of values that lie domain by domain, from ``starts``; shape (k,)."""
    total = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
    result: Counts = total[starts[1:]] - total[starts[:-1]]
    return result


def domain_maxima(values: npt.NDArray[np.int32], starts: npt.NDArray[np.int64]) -> Array:
    """The same of maxima; 0 for an empty domain."""
    return np.array(
        [values[a:b].max(initial=0) for a, b in pairwise(starts)],
        dtype=np.float64,
    )
