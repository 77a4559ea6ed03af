"""The best static mix of a setting: candidates spread over the simplex, then around the best.

Where one target is to be raised, the candidates lie on a line: all shares of the target, then what
each other domain needs at least.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.stats import norm, qmc

Array = npt.NDArray[np.float64]

COARSE, FINE, BEST = 12, 8, 3
"""Mixes spread around equal shares, mixes around what these say is best, mixes confirmed."""

SPREAD, NEAR = 0.8, 0.3
"""Standard deviations of the logarithms of shares: of all candidates, and around the best."""

MARGINS = (-0.01, -0.005, 0.0, 0.005, 0.01, 0.015, 0.02, 0.03)
"""By how much of its base loss each other domain is to stay below its limit, a mix each."""


def coarse(k: int, seed: int) -> list[list[float]]:
    """Mixes by a scrambled Sobol sequence in the logarithms of shares, shape (COARSE, k)."""
    return _around(np.zeros(k), SPREAD, COARSE, seed)


def fine(
    mixes: Sequence[Sequence[float]], losses: Sequence[Sequence[float]], seed: int
) -> list[list[float]]:
    """Mixes around the best one by curves fitted to ``losses`` (n, k), that one first."""
    centre = minimiser(np.log(np.maximum(np.array(mixes), 1e-4)), np.array(losses))
    first = np.exp(centre)
    return [_rounded(first / first.sum()), *_around(centre, NEAR, FINE - 1, seed + 1)]


def coarse_of_targets(k: int, targets: Sequence[int]) -> list[list[float]]:
    """Mixes by the targets' share, divided alike as that of the others is, shape (COARSE, k)."""
    return [
        _rounded(
            np.array(
                [
                    share / len(targets) if i in targets else (1 - share) / (k - len(targets))
                    for i in range(k)
                ]
            )
        )
        for share in np.linspace(0.1, 0.98, COARSE)
    ]


def fine_of_targets(
    mixes: Sequence[Sequence[float]], gains: Array, targets: Sequence[int], limit: float
) -> list[list[float]]:
    """Mixes that give each other domain what keeps it, and the rest to the targets.

    ``gains`` (n, k): each domain's fall since the base as a part of its loss there; ``limit``:
    the least that is allowed, -0.02 for a tolerance of 2 %. Near the best mix that keeps all, each
    other domain's gain is fitted as c + g ln x of its share x, which gives the share that it needs
    for the limit and a margin; shape (len(MARGINS), k).
    """
    shares = np.array(mixes)
    best = min(range(len(gains)), key=lambda n: kept_first(gains[n : n + 1], targets, limit))
    near = _nearest(shares[:, targets].sum(1), best)
    found = []
    for margin in MARGINS:
        mix = np.zeros(shares.shape[1])
        for i in set(range(mix.size)) - set(targets):
            slope, at_one = np.polyfit(np.log(shares[near, i]), gains[near, i], 1)
            needed = np.exp((limit + margin - at_one) / max(slope, 1e-3))
            mix[i] = np.clip(needed, 0.005, 0.5)
        mix *= min(1.0, 0.95 / mix.sum())
        mix[list(targets)] = (1 - mix.sum()) / len(targets)
        found.append(_rounded(mix))
    return found


def _nearest(of_targets: Array, best: int) -> Array:
    """Five mixes whose targets' share is nearest the best one's."""
    nearest: Array = np.argsort(np.abs(of_targets - of_targets[best]), kind="stable")[:5]
    return nearest


def kept_first(gains: Array, targets: Sequence[int], limit: float) -> tuple[float, float]:
    """A key that sorts mixes: those that keep all others in each seed, by the targets' mean gain.

    ``gains``: of one mix, shape (seeds, k).
    """
    least = float(np.delete(gains, targets, axis=1).min())
    return max(0.0, limit - least), -float(gains[:, targets].mean())


def minimiser(logs: Array, losses: Array) -> Array:
    """Logarithms of the shares with the least mean loss by curves of each domain's own share.

    Each domain's loss is fitted as c + g ln x + h (ln x)^2 of its share x (ridge on h), and the
    shares stay within the logarithms that were tried. ``logs``, ``losses``: shape (n, k).
    """
    n, k = logs.shape
    curves = []
    for i in range(k):
        design = np.stack([np.ones(n), logs[:, i], logs[:, i] ** 2], axis=1)
        ridge = np.diag([1e-9, 1e-9, 0.05 * n])
        centred = design.copy()
        middle = logs[:, i].mean()
        centred[:, 1], centred[:, 2] = logs[:, i] - middle, (logs[:, i] - middle) ** 2
        fitted = np.linalg.solve(centred.T @ centred + ridge, centred.T @ losses[:, i])
        curves.append((middle, fitted))

    def mean(u: Array) -> float:
        x = u - np.log(np.exp(u).sum())
        away = [x[i] - middle for i, (middle, _) in enumerate(curves)]
        return float(sum(c @ [1.0, d, d * d] for d, (_, c) in zip(away, curves, strict=True)) / k)

    low, high = logs.min(0), logs.max(0)
    found = minimize(mean, np.log(np.full(k, 1 / k)), bounds=list(zip(low, high, strict=True)))
    centre: Array = found.x - np.log(np.exp(found.x).sum())
    return centre


def _around(centre: Array, spread: float, n: int, seed: int) -> list[list[float]]:
    points = qmc.Sobol(centre.size, rng=seed).random(1 << (n - 1).bit_length())[:n]
    logs = centre + spread * norm.ppf(np.clip(points, 0.01, 0.99))
    mixes = np.exp(logs - logs.max(1, keepdims=True))
    return [_rounded(mix / mix.sum()) for mix in mixes]


def _rounded(mix: Array) -> list[float]:
    rounded = np.round(mix, 4)
    rounded[0] += 1 - rounded.sum()
    return [float(round(x, 4)) for x in rounded]
