"""What shares are, how they are kept within bounds, and the checks all formulas make.

Every function raises ValueError on a wrong shape, NaN or an infinite value.
"""

from bisect import bisect_right

import numpy as np
import numpy.typing as npt

from versatune import intervals

Array = intervals.Array

SUM_TOLERANCE = 1e-6
"""How far from 1 the sum of shares may be before it counts as a mistake."""

ROUNDED = 1e-14
"""How far from 1 the sum of shares may be after rounding: dividing by it changes them again."""


def shares(weights: npt.ArrayLike) -> Array:
    """``weights`` checked to be shares: shape (k,), none negative, sum 1 (within 1e-6).

    Returned rescaled to sum to 1, and as they are where they do but for rounding.
    """
    values = vector("weights", weights)
    if (values < 0).any():
        raise ValueError(f"weights must not be negative, got {values.tolist()}")
    total = float(values.sum())
    if abs(total - 1) > SUM_TOLERANCE:
        raise ValueError(f"weights must sum to 1, got {total:.8g}")
    return values if abs(total - 1) <= ROUNDED else values / total


def bounded_shares(weights: npt.ArrayLike, floor: npt.ArrayLike, cap: npt.ArrayLike) -> Array:
    """The shares clip(c w_j, floor_j, cap_j) with the one c that makes them sum to 1.

    This is the projection onto {floor <= x <= cap, sum x = 1} in the sense of the
    Kullback-Leibler divergence: shares inside their bounds keep their ratios, and no share
    becomes 0 that was not. ``floor`` and ``cap``: numbers or shape (k,), 0 <= floor <= cap <= 1.
    Exact up to rounding, for shares of any size: the breakpoints are sorted, no iteration.
    Raises ValueError when the floors sum to more than 1, or what the caps allow to less.
    """
    old = shares(weights)
    low = np.broadcast_to(np.asarray(floor, dtype=np.float64), old.shape)
    high = np.broadcast_to(np.asarray(cap, dtype=np.float64), old.shape)
    if not ((low >= 0) & (low <= high) & (high <= 1)).all():
        raise ValueError("bounds must hold 0 <= floor <= cap <= 1")
    positive = old > 0
    reachable = float(np.where(positive, high, low).sum())
    if low.sum() > 1 + SUM_TOLERANCE or reachable < 1 - SUM_TOLERANCE:
        raise ValueError(
            f"no shares fit the bounds: floors sum to {low.sum():.6g}, caps to {reachable:.6g}"
        )
    if ((low <= old) & (old <= high)).all():
        return old
    result = low.copy()
    result[positive] = _clipped_to(
        1.0 - float(low[~positive].sum()), old[positive], low[positive], high[positive]
    )
    return result


def _clipped_to(total: float, w: Array, low: Array, high: Array) -> Array:
    """clip(c w, low, high) with the c that makes its sum ``total``; all shape (k,), w > 0.

    The sum is piecewise linear and rising in c, with bends at low_j / w_j and high_j / w_j. Ratios
    are logarithms, since a share may be so small that they overflow; each piece is summed anew,
    since adding and taking away slopes loses the small ones beside a large one.
    """
    size = np.log(w)
    with np.errstate(divide="ignore"):
        leaves_low, reaches_high = np.log(low) - size, np.log(high) - size
    bends = np.sort(np.concatenate([leaves_low, reaches_high])).tolist()

    def clipped_sum(log_c: float) -> float:
        return float(np.clip(np.exp(np.minimum(log_c + size, 0.0)), low, high).sum())

    below = max(bisect_right(bends, total, key=clipped_sum) - 1, 0)
    if below + 1 == len(bends):
        return high
    at_low, at_high = leaves_low >= bends[below + 1], reaches_high <= bends[below]
    free = ~(at_low | at_high)
    result = np.where(at_low, low, high)
    if free.any():
        parts = np.exp(size[free] - size[free].max())
        room = total - float(result[~free].sum())
        result[free] = np.clip(room * parts / parts.sum(), low[free], high[free])
    return result


def vector(name: str, values: npt.ArrayLike) -> Array:
    """``values`` as a finite array of shape (k,), k >= 1."""
    array = np.array(values, dtype=np.float64)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"{name} must have shape (k,), got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {array.tolist()}")
    return array


def like(other: Array, name: str, values: npt.ArrayLike) -> Array:
    """``values`` as :func:`vector`, of the same shape as ``other``."""
    array = vector(name, values)
    if array.shape != other.shape:
        raise ValueError(f"{name} has shape {array.shape}, expected {other.shape}")
    return array


def losses(name: str, values: npt.ArrayLike) -> Array:
    """``values`` as :func:`vector`, all above 0."""
    array = vector(name, values)
    if (array <= 0).any():
        raise ValueError(f"{name} must be positive, got {array.tolist()}")
    return array


def normalised(values: Array) -> Array:
    """``values`` divided by their sum."""
    result: Array = values / values.sum()
    return result


def index(target: int, like: Array) -> None:
    """Refuse a ``target`` that is no index of ``like``."""
    if not 0 <= target < like.size:
        raise ValueError(f"target must be a domain's index below {like.size}, got {target}")


def not_negative(name: str, value: float) -> None:
    """Refuse a number below 0, NaN or infinite."""
    if not (np.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be >= 0, got {value}")
