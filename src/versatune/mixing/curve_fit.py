"""Fitting the curve of a run on one domain's own rows.

    L(E) = e + (L(0) - e) (1 + a E / b)^-b

with E the learning amount, repeated rows counted by their worth
(:mod:`versatune.mixing.repeats`). Slope a, exponent b and floor e are fitted together, in
logarithms of the loss, since that is what is measured to so many per cent: near its floor a
reducible loss is all noise, and tells nothing of the slope. A few noisy points can't tell all three,
so b and e are kept near what is usual.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from versatune.mixing.shares import Array

USUAL, USUAL_SPREAD = 0.5, 0.7
"""The exponent to expect and the standard deviation of its logarithm."""

FLOOR_SPREAD = 1.2
"""The standard deviation of the log odds of the floor's part of the least loss."""

MISFIT = 0.02
"""How far losses may be off the curve besides measured noise, as a part of themselves."""


@dataclass(frozen=True)
class Curve:
    """One fitted curve."""

    slope: float
    exponent: float
    floor: float
    slope_error: float
    """Standard error of ln a."""
    exponent_error: float
    """Of ln b, the slope as uncertain as it is."""
    cost: float
    """Sum of the squared residuals, in standard errors, and of the prior's."""

    def at(self, learning: Array, first: float) -> Array:
        """Losses after ``learning`` from the loss ``first``."""
        grown = np.maximum(1 + self.slope * learning / self.exponent, 1e-6)
        return self.floor + (first - self.floor) * grown**-self.exponent


def fit_curve(learning: Array, losses: Array, first: float, stderr: Array, floor: float) -> Curve:
    """The curve through ``losses`` (n,) at ``learning`` (n,), from ``first`` at 0.

    ``stderr``: of ln(loss / first), paired by row. ``floor``: the one to expect; it lies below
    the least loss.
    """
    least = min(float(losses.min()), 0.999 * first)
    part = min(max(floor / least, 1e-6), 0.95)
    usual = np.log(part / (1 - part))
    error = np.sqrt(stderr**2 + MISFIT**2)

    def parts(theta: Array) -> tuple[float, float, float]:
        return (
            float(np.exp(np.clip(theta[0], -30, 30))),
            float(np.exp(np.clip(theta[1], -4, 4))),
            float(least / (1 + np.exp(-np.clip(theta[2], -20, 20)))),
        )

    def off(theta: Array) -> Array:
        a, b, low = parts(theta)
        found = Curve(a, b, low, 0.0, 0.0, 0.0).at(learning, first)
        prior = [(theta[1] - np.log(USUAL)) / USUAL_SPREAD, (theta[2] - usual) / FLOOR_SPREAD]
        return np.concatenate([np.log(losses / np.maximum(found, 1e-9)) / error, prior])

    steep = np.log(max(np.log(first / losses[0]), 0.01) * 2 / learning[0])
    best = min(
        (least_squares(off, [steep + more, np.log(USUAL), usual]) for more in (0.0, 2.0)),
        key=lambda one: one.cost,
    )
    covariance = np.linalg.pinv(best.jac.T @ best.jac)
    a, b, low = parts(best.x)
    spread = np.sqrt(np.diag(covariance))
    return Curve(a, b, low, float(spread[0]), float(spread[1]), 2 * float(best.cost))
