"""Standard errors and 95 % intervals: pure functions of numbers."""

import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

Z95 = 1.959963984540054
"""The 97.5 % point of the normal distribution."""


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of ``n`` items (Wilson 1927), within [0, 1].

    Unlike share ± 1.96 stderr it is right near 0 and 1 and for few items.
    Raises ValueError unless 0 <= share <= 1 and n >= 1.
    """
    if not 0 <= share <= 1 or n < 1:
        raise ValueError(f"a share of {share} of {n} items")
    scale = 1 + Z95**2 / n
    centre = (share + Z95**2 / (2 * n)) / scale
    half = Z95 / scale * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def share_stderr(share: float, n: int) -> float:
    """Standard error of a share as lm-evaluation-harness gives it (n - 1); 0 for one item."""
    return math.sqrt(share * (1 - share) / (n - 1)) if n > 1 else 0.0


def t_interval(mean: float, stderr: float, n: int) -> tuple[float, float]:
    """mean ± t(n - 1) * stderr; unbounded for n < 2, where nothing is known of the spread."""
    if n < 2:
        return -math.inf, math.inf
    from scipy.stats import t

    half = float(t.ppf(0.975, n - 1)) * stderr
    return mean - half, mean + half


def mean_stderr(values: Array) -> tuple[float, float]:
    """The mean of ``values``, shape (n,), and its standard error (NaN for one value)."""
    if len(values) < 2:
        return float(np.mean(values)), math.nan
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))


def paired_ratio_change(before: Array, after: Array, weight: Array) -> tuple[float, float]:
    """Change of a ratio sum(x)/sum(w) between two measurements of the same rows, and its stderr.

    ``before``, ``after``: summed loss of each row, shape (n,); ``weight``: its tokens. Because
    rows are paired, the error is that of the difference, much smaller than of either loss.
    Raises ValueError when nothing was weighed.
    """
    n, total = len(weight), float(weight.sum())
    if total <= 0:
        raise ValueError("no tokens")
    difference = after - before
    change = float(difference.sum() / total)
    if n < 2:
        return change, math.nan
    spread = difference - change * weight
    return change, float(math.sqrt(n / (n - 1) * (spread**2).sum()) / total)


def bootstrap_mean(values: Array, seed: int, draws: int = 10_000) -> tuple[float, float]:
    """The 95 % percentile-bootstrap interval of the mean of ``values``, shape (n,)."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), size=(draws, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
