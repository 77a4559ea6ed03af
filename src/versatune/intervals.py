"""Standard errors and 95 % intervals: pure functions of numbers."""

import math

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

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
    """mean ± t(n - 1) * stderr; NaN for n < 2, where nothing is known of the spread."""
    if n < 2:
        return math.nan, math.nan
    half = float(stdtrit(n - 1, 0.975)) * stderr
    return mean - half, mean + half


def mean_stderr(values: Array) -> tuple[float, float]:
    """The mean of ``values``, shape (n,), and its standard error (NaN for one value)."""
    if len(values) < 2:
        return float(np.mean(values)), math.nan
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))


def ratio_stderr(values: Array, weights: Array) -> float:
    """Standard error of sum(values) / sum(weights) over the draw of rows, both shape (n,).

    By the delta method: sqrt(n / (n - 1) sum (v_i - R w_i)^2) / sum(w). 0 for one row.
    """
    n, total = len(values), float(weights.sum())
    if n < 2 or total <= 0:
        return 0.0
    rest = values - float(values.sum()) / total * weights
    return math.sqrt(n / (n - 1) * float((rest**2).sum())) / total


def bonett_price(before: Array, after: Array) -> tuple[float, float, float]:
    """The 95 % interval of the change of a share of the same items, and its stderr.

    ``before``, ``after``: 0 or 1, shape (n,). Bonett and Price (2012) for paired shares: with b
    items that became right and c that became wrong, p = (b + 1) / (n + 2), q = (c + 1) / (n + 2),
    it is p - q -+ 1.96 sqrt((p + q - (p - q)^2) / (n + 2)), within [-1, 1]. Unlike an interval of
    the differences' spread it does not shrink to nothing where few items change, or none.
    Raises ValueError on different shapes, no items, values but 0 and 1.
    """
    if before.shape != after.shape or before.ndim != 1 or not before.size:
        raise ValueError(f"shapes {before.shape} and {after.shape}: the same items needed")
    if not np.isin([before, after], (0.0, 1.0)).all():
        raise ValueError("shares are made of zeros and ones")
    n = len(before)
    gained = (float((after > before).sum()) + 1) / (n + 2)
    lost = (float((after < before).sum()) + 1) / (n + 2)
    stderr = math.sqrt((gained + lost - (gained - lost) ** 2) / (n + 2))
    centre, half = gained - lost, Z95 * stderr
    return max(-1.0, centre - half), min(1.0, centre + half), stderr


def log_ratio(before: Array, after: Array) -> tuple[float, float]:
    """ln(sum(after) / sum(before)) of the same rows, and its stderr by the delta method.

    ``before``, ``after``: summed loss of each row, shape (n,); the tokens of the rows cancel. With
    a_i and b_i the parts of the rows in the two sums, a_i = after_i / sum(after), the stderr is
    sqrt(n / (n - 1) * sum_i (a_i - b_i)^2). On this scale no interval reaches a fall of 100 %.
    NaN where a sum is not above zero; the stderr is NaN for one row.
    """
    n, first, last = len(before), float(before.sum()), float(after.sum())
    if not (first > 0 and last > 0):
        return math.nan, math.nan
    ratio = math.log(last / first)
    if n < 2:
        return ratio, math.nan
    spread = after / last - before / first
    return ratio, math.sqrt(n / (n - 1) * float((spread**2).sum()))


def relative_change(before: Array, after: Array) -> tuple[float, float, float, float]:
    """sum(after) / sum(before) - 1 of the same rows: the value, its 95 % interval, its stderr.

    ``before``, ``after``: summed loss of each row, shape (n,). With x the :func:`log_ratio` and t
    of n - 1 degrees of freedom the interval is exp(x -+ t stderr(x)) - 1, so it ends above -1; NaN
    for one row. The stderr is that of the ratio by the delta method.
    """
    ratio, stderr = log_ratio(before, after)
    low, high = t_interval(ratio, stderr, len(before))
    value = expm1(ratio)
    return value, expm1(low), expm1(high), (1 + value) * stderr


def expm1(exponent: float) -> float:
    """exp(exponent) - 1; infinite where that overflows."""
    return math.inf if exponent > _LARGEST else math.expm1(exponent)


_LARGEST = 700.0
"""exp of more than this overflows."""


def ratio_interval(values: Array, baseline: Array) -> tuple[float, float]:
    """Fieller's (1954) 95 % interval of mean(values) / mean(baseline), paired; both shape (n,).

    The ratios R that a t-test of mean(values - R * baseline) = 0 with n - 1 degrees of freedom
    keeps: (mean(values) - R mean(baseline))^2 <= t^2 var(values - R baseline) / n. Unlike the delta
    method it allows for the error of the baseline's mean. NaN where that mean can't be told from
    0, since the ratio may then be anything, and for n < 2.
    """
    n = len(values)
    if n < 2:
        return math.nan, math.nan
    top, bottom = float(values.mean()), float(baseline.mean())
    errors = float(stdtrit(n - 1, 0.975)) ** 2 * np.cov(values, baseline) / n
    a, b = bottom**2 - errors[1, 1], top * bottom - errors[0, 1]
    if a <= 0:
        return math.nan, math.nan
    # Above 0 but for rounding, since the ratio of the means itself is kept.
    root = math.sqrt(max(0.0, b**2 - a * (top**2 - errors[0, 0])))
    return (b - root) / a, (b + root) / a


def t_p_value(mean: float, stderr: float, df: int) -> float:
    """Two-sided p of mean / stderr under t(df); NaN where the error is not known, or 0."""
    if df < 1 or not stderr > 0:
        return math.nan
    return float(2 * stdtr(df, -abs(mean) / stderr))


def holm(p_values: npt.ArrayLike) -> Array:
    """Holm's (1979) adjusted p-values of a family, shape (n,); NaN are no members of it.

    The i-th smallest of m is multiplied by m - i + 1, and none is below one before it. Verdicts at
    adjusted p < 0.05 are all right in at least 95 % of cases, however the tests depend on another.
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, math.nan)
    order = np.argsort(p)[: int((~np.isnan(p)).sum())]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    return adjusted
