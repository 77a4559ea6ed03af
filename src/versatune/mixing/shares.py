"""What shares are, how they are kept within bounds, and the checks all formulas make.

Every function raises ValueError on a wrong shape, NaN or an infinite value.
"""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

SUM_TOLERANCE = 1e-6
"""How far from 1 the sum of shares may be before it counts as a mistake."""


def shares(weights: npt.ArrayLike) -> Array:
    """``weights`` checked to be shares: shape (k,), none negative, sum 1 (within 1e-6).

    Returned rescaled to sum to 1 as exactly as floating point can.
    """
    values = vector("weights", weights)
    if (values < 0).any():
        raise ValueError(f"weights must not be negative, got {values.tolist()}")
    total = float(values.sum())
    if abs(total - 1) > SUM_TOLERANCE:
        raise ValueError(f"weights must sum to 1, got {total:.8g}")
    return values / total


def bounded_shares(weights: npt.ArrayLike, floor: npt.ArrayLike, cap: npt.ArrayLike) -> Array:
    """The shares clip(c w_j, floor_j, cap_j) with the one c that makes them sum to 1.

    This is the projection onto {floor <= x <= cap, sum x = 1} in the sense of the
    Kullback-Leibler divergence: shares inside their bounds keep their ratios, and no share
    becomes 0 that was not. ``floor`` and ``cap``: numbers or shape (k,), 0 <= floor <= cap <= 1.
    Exact up to rounding: the breakpoints are sorted, no iteration.
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
    w, lo, hi = old[positive], low[positive], high[positive]
    wanted = 1.0 - float(low[~positive].sum())
    # sum_j clip(c w_j, lo_j, hi_j) is piecewise linear and rising in c, with a bend at each
    # lo_j / w_j (slope + w_j) and hi_j / w_j (slope - w_j).
    bends = np.concatenate([lo / w, hi / w])
    order = np.argsort(bends, kind="stable")
    slopes = np.cumsum(np.concatenate([w, -w])[order])
    at = float(lo.sum()) + np.concatenate([[0.0], np.cumsum(slopes[:-1] * np.diff(bends[order]))])
    i = max(int(np.searchsorted(at, wanted, side="right")) - 1, 0)
    c = bends[order][i] + (wanted - at[i]) / slopes[i] if slopes[i] > 1e-15 else bends[order][i]
    result = low.copy()
    result[positive] = np.clip(c * w, lo, hi)
    return result / result.sum()


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
    return values / values.sum()


def index(target: int, like: Array) -> None:
    """Refuse a ``target`` that is no index of ``like``."""
    if not 0 <= target < like.size:
        raise ValueError(f"target must be a domain's index below {like.size}, got {target}")


def not_negative(name: str, value: float) -> None:
    """Refuse a number below 0, NaN or infinite."""
    if not (np.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be >= 0, got {value}")
