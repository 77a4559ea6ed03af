"""The best static mix of a setting: candidates spread over the simplex, then around the best."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, qmc

Array = npt.NDArray[np.float64]

COARSE, FINE, BEST = 12, 8, 3
"""Mixes spread around equal shares, mixes around what these say is best, mixes confirmed."""

SPREAD, NEAR = 0.8, 0.3
"""Standard deviations of the logarithms of shares: of all candidates, and around the best."""


def coarse(k: int, seed: int) -> list[list[float]]:
    """Mixes by a scrambled Sobol sequence in the logarithms of shares, shape (COARSE, k)."""
    return _around(np.zeros(k), SPREAD, COARSE, seed)


def fine(mixes: Sequence[Sequence[float]], losses: Sequence[float], seed: int) -> list[list[float]]:
    """Mixes around a centre: the best third's mean logarithms, moved on by a fitted slope."""
    logs = np.log(np.maximum(np.array(mixes), 1e-4))
    logs = logs - logs.mean(1, keepdims=True)
    values = np.array(losses)
    order = np.argsort(values)
    best = logs[order[: max(1, len(order) // 4)]].mean(0)
    design = np.hstack([np.ones((len(logs), 1)), logs])
    ridge = 0.5 * np.eye(design.shape[1])
    ridge[0, 0] = 1e-9
    slope = np.linalg.solve(design.T @ design + ridge, design.T @ values)[1:]
    length = float(np.linalg.norm(slope))
    step = -slope / length * NEAR if length > 0 else np.zeros(logs.shape[1])
    return _around(best + step, NEAR, FINE, seed + 1)


def _around(centre: Array, spread: float, n: int, seed: int) -> list[list[float]]:
    points = qmc.Sobol(centre.size, rng=seed).random(1 << (n - 1).bit_length())[:n]
    logs = centre + spread * norm.ppf(np.clip(points, 0.01, 0.99))
    mixes = np.exp(logs - logs.max(1, keepdims=True))
    rounded = np.round(mixes / mixes.sum(1, keepdims=True), 4)
    rounded[:, 0] += 1 - rounded.sum(1)
    return [[float(round(x, 4)) for x in mix] for mix in rounded]
