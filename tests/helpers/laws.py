"""Mixing laws of known numbers, and the traces of runs in worlds that follow them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from versatune.mixing.law import DRAWS, PRIOR, Law
from versatune.mixing.repeats import Supply
from versatune.mixing.shares import Array
from versatune.mixing.traces import Trace


def law(
    alpha: Sequence[float],
    nu: Sequence[float] | float = 0.0,
    *,
    beta: float = 0.0,
    b: float = 0.5,
    floor: float = 0.0,
    tau: float = 0.0,
    repeats: float = 30.0,
    fade: float = 0.0,
    base: Any = 1.0,
    unsure: float = 0.0,
) -> Law:
    """A law by its numbers; ``unsure``: the standard deviation of ln alpha and ln nu in its draws.

    ``floor``: a part of ``base``.
    """
    k = len(alpha)
    first = np.broadcast_to(np.asarray(base, dtype=np.float64), (k,)).copy()
    least = 0.9 * first
    part = min(max(floor / 0.9, 4e-4), 0.99)
    columns = [np.log(np.maximum(np.broadcast_to(v, (k,)), 1e-6)) for v in (alpha, nu, beta, b)]
    columns += [np.full(k, v) for v in (np.log(part / (1 - part)), tau, np.log(repeats))]
    columns.append(np.full(k, np.log(max(fade, 1e-6))))
    numbers = np.repeat(np.stack(columns, axis=1)[None], 1 + DRAWS, axis=0)
    assert numbers.shape[2] == len(PRIOR)
    rng = np.random.default_rng(0)
    numbers[1:, :, :2] += unsure * rng.standard_normal((DRAWS, k, 2))
    return Law(numbers, first, least)


def run(
    truth: Law,
    mixes: Sequence[Any],
    learning: float | Sequence[float] = 1.0,
    *,
    rates: Sequence[float] | None = None,
    passes_alone: float = 0.0,
    noise: float = 0.0,
    seed: int = 0,
) -> Trace:
    """The trace of a run that goes as ``truth`` says; ``passes_alone``: of a unit of learning."""
    rng, k = np.random.default_rng(seed), truth.base.size
    amounts = np.broadcast_to(learning, (len(mixes),))
    trace, exposure, one = Trace.begin(truth.base), truth.start(), truth.likeliest()
    for mix, amount, rate in zip(mixes, amounts, rates or [0.0] * len(mixes), strict=True):
        weights = np.asarray(mix, dtype=np.float64)
        seen, alone = trace.passes[-1], np.full(k, passes_alone * amount)
        exposure = truth.after(exposure, weights, float(amount), Supply(seen, alone))
        own = type(exposure)(exposure.own[:1], exposure.others)
        losses = one.losses(own, rate)[0] * np.exp(noise * rng.standard_normal(k))
        trace = trace.then(
            weights, float(amount), rate, seen + weights * alone, losses, np.full(k, noise)
        )
    return trace


def ends(truth: Law, mix: Any, learning: float = 1.0) -> Array:
    """Losses after ``learning`` on one mix."""
    return truth.ends(np.asarray(mix, dtype=np.float64), learning)[0][0]
