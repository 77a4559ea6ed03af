"""From the references' curves to a mixing law: slopes, transfer between domains, and exponents.

A reference run trains on one domain alone and measures it every few steps, and all others several
times on its way. Each column of the law is what one run did to all domains.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from versatune.errors import VersatuneError
from versatune.mixing.curve_fit import Curve, fit_curve
from versatune.mixing.law import Law, diagonal_covariance, gained, reducible
from versatune.mixing.repeats import USUAL_REPEATS, worth
from versatune.mixing.shares import Array

USUAL_FLOOR = 0.7
"""The part of a reference loss to expect as floor, which no training takes away."""

REPEATS = np.geomspace(1.5, 24.0, 5)
"""The R* that are tried: how soon repeated rows teach less."""

REPEATS_SPREAD = 0.7
"""The standard deviation of ln R* around what is usual."""

LEAST_ERROR = 0.05
"""A slope's standard error is at least this part of it."""


class Point(BaseModel):
    """One measurement on the way of a reference run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    learning: float
    """Learning rate over its peak, summed over the steps so far."""
    losses: dict[str, float]
    """Held-out nats per token by domain: the run's own, and now and then all."""
    stderrs: dict[str, float] = {}
    """Of the logarithm of each loss over the one at step 0, paired by row."""
    passes: float = 0.0
    """How many times the run's own rows were seen; 0 where it was not noted: all count as new."""


def law_of(
    domains: Sequence[str],
    curves: Mapping[str, Sequence[Point]],
    references: Mapping[str, float],
    irreducible: float = USUAL_FLOOR,
) -> Law:
    """The law by ``curves``: a run for each domain, its first point (step 0) of the base model.

    Floors, exponents and slopes on own rows are those of the runs' own curves
    (:mod:`versatune.mixing.curve_fit`); the other slopes are of straight lines.
    ``references``: the loss each domain reaches alone; ``irreducible`` of it is the floor to
    expect, where a curve says little. Raises VersatuneError when a run is missing, or never
    measured a domain after step 0.
    """
    k = len(domains)
    first = np.array([_base(curves, name) for name in domains])
    repeats, own = _own_curves(domains, curves, references, irreducible)
    floor = np.array([curve.floor for curve in own])
    exponent = np.array([curve.exponent for curve in own])
    at = reducible(first, floor)
    slopes, stderr = np.empty((k, k)), np.empty((k, k))
    for j, run in enumerate(domains):
        for i, name in enumerate(domains):
            if i == j:
                slopes[i, j] = own[i].slope
                stderr[i, j] = own[i].slope * np.hypot(own[i].slope_error, LEAST_ERROR)
                continue
            learning, losses, error = _series(curves, run, name)
            y = reducible(losses, floor[i])
            got = gained(np.full(y.size, at[i]), y, np.full(y.size, exponent[i]))
            slopes[i, j], stderr[i, j] = slope_of(
                learning, got, error * losses / y * (at[i] / y) ** (1 / exponent[i])
            )
    slows = (slopes >= 0).astype(np.float64)
    return Law(slopes, diagonal_covariance(stderr), exponent, floor, at, slows, repeats)


def _own_curves(
    domains: Sequence[str],
    curves: Mapping[str, Sequence[Point]],
    references: Mapping[str, float],
    irreducible: float,
) -> tuple[float, list[Curve]]:
    """R* and each domain's curve on its own rows.

    One R* for all, with which their curves fit best, kept near what is usual: few points of a run
    lie beyond its first pass, and rows of one store are alike.
    """
    series = {name: _series(curves, name, name) for name in domains}

    def fitted(repeats: float) -> list[Curve]:
        return [
            fit_curve(
                fresh_learning(curves[name], name, repeats),
                series[name][1],
                _base(curves, name),
                series[name][2],
                irreducible * references[name],
            )
            for name in domains
        ]

    if all(point.passes <= 1 for run in curves.values() for point in run):
        return USUAL_REPEATS, fitted(USUAL_REPEATS)
    costs = np.array([sum(c.cost for c in fitted(float(repeats))) for repeats in REPEATS])
    costs += (np.log(REPEATS / USUAL_REPEATS) / REPEATS_SPREAD) ** 2
    repeats = float(np.exp(_least_of(np.log(REPEATS), costs)))
    return repeats, fitted(repeats)


def _least_of(x: Array, costs: Array) -> float:
    """Where the parabola through the least of ``costs`` and its neighbours is least."""
    at = int(np.argmin(costs))
    if at in (0, x.size - 1):
        return float(x[at])
    a, b, c = costs[at - 1 : at + 2]
    return float(x[at] + (x[at + 1] - x[at]) / 2 * (a - c) / max(a - 2 * b + c, 1e-12))


def reached(losses: Array) -> tuple[float, int]:
    """The loss a run reached and where: the last one where it is lowest, else a smooth minimum.

    ``losses`` shape (n,), the base model's first. The least of many noisy numbers is too low by
    their noise, so a minimum on the way is averaged with its neighbours, (1, 2, 1) / 4. The base
    model's own loss stands where training only raised it.
    """
    at = int(np.argmin(losses))
    if at in (0, losses.size - 1):
        return float(losses[at]), at
    return float(losses[at - 1] + 2 * losses[at] + losses[at + 1]) / 4, at


def still_falling(losses: Array, learning: Array, part: float = 0.02, least: float = 0.002) -> bool:
    """Whether a run that went to its end would go lower: what its last tenth of learning tells.

    Lowest at the end, and in the last part of its learning amount (at least a tenth) still falling
    so that half as much again would take off more than ``part`` of the loss; or more than
    ``least`` of it, at half the average speed of the run or faster: a run that has learnt little
    and did not slow down ended at its beginning. shape (n,) each.
    """
    if losses.size < 2 or int(np.argmin(losses)) != losses.size - 1:
        return False
    before = np.flatnonzero(learning <= 0.9 * learning[-1])
    start = int(before[-1]) if before.size else 0
    amount = float(learning[-1] - learning[start])
    fall = float(np.log(losses[start] / losses[-1]))
    more = fall / max(amount, 1e-12) * float(learning[-1]) * 0.5
    return more > part or more > max(least, 0.25 * float(np.log(losses[0] / losses[-1])))


def measured_at(rounds: int, affordable: int) -> tuple[int, ...]:
    """After which of ``rounds`` to measure all domains: 0, and at most ``affordable`` doublings.

    Spread over 1, 2, 4, ... ``rounds``, the last always among them; empty when none is affordable.
    """
    doublings = [1 << i for i in range(rounds.bit_length()) if 1 << i < rounds] + [rounds]
    if affordable < 1:
        return ()
    chosen = np.linspace(len(doublings) - 1, 0, min(affordable, len(doublings))).round().astype(int)
    return (0, *sorted({doublings[i] for i in chosen}))


def law_facts(reference_losses: Mapping[str, Any]) -> dict[str, Any] | None:
    """The law by the curves in ``reference_losses``, as JSON with ``domains``; None without any."""
    entries = reference_losses["domains"]
    curves = points_of(reference_losses)
    if set(curves) != set(entries):
        return None
    if any(not _measures_all(run, entries) for run in curves.values()):
        return None
    references = {name: float(entry["nats_per_token"]) for name, entry in entries.items()}
    return {"domains": list(entries), **law_of(list(entries), curves, references).to_json()}


def _measures_all(run: Sequence[Point], names: Mapping[str, Any]) -> bool:
    later = [p for p in run if p.step > 0]
    return all(any(name in p.losses for p in later) for name in names)


def fresh_learning(run: Sequence[Point], name: str, repeats: float) -> Array:
    """The learning amounts of a run's points of ``name``, repeated rows counted by their worth."""
    points = [run[0], *_points(run, name)]
    learning = np.diff([p.learning for p in points])
    passes = np.array([p.passes for p in points])
    made = np.diff(passes)
    some = made > 0
    part = np.where(some, np.diff(worth(passes, repeats)) / np.where(some, made, 1.0), 1.0)
    return np.cumsum(learning * part)


def slope_of(learning: Array, got: Array, error: Array) -> tuple[float, float]:
    """The slope of ``got`` over ``learning`` through the origin, and its standard error.

    The error counts what was measured (``error``) and how far the points lie off the line.
    """
    total = float(learning @ learning)
    slope = float(learning @ got) / total
    off = got - slope * learning
    scatter = float(off @ off) / max(got.size - 1, 1) / total
    measured = float((learning**2) @ error**2) / total**2
    return slope, float(np.sqrt(scatter + measured + (LEAST_ERROR * slope) ** 2))


def points_of(value: Mapping[str, Any]) -> dict[str, list[Point]]:
    """The curves of ``reference_losses``, by domain; empty where a file has none."""
    domains = value["domains"]
    return {
        name: [Point.model_validate(p) for p in entry["curve"]]
        for name, entry in domains.items()
        if entry.get("curve")
    }


def _base(curves: Mapping[str, Sequence[Point]], name: str) -> float:
    run = curves.get(name)
    if not run or run[0].step != 0 or name not in run[0].losses:
        raise VersatuneError(
            f"the references have no curve of {name} that begins with the base model: "
            "measure them again."
        )
    return run[0].losses[name]


def _series(
    curves: Mapping[str, Sequence[Point]], run: str, name: str
) -> tuple[Array, Array, Array]:
    """Learning, losses of ``name`` and their errors in the run of ``run``, after step 0."""
    points = _points(curves[run], name)
    if not points:
        raise VersatuneError(
            f"the reference run of {run} never measured {name}: measure the references again with "
            "all domains."
        )
    return (
        np.array([p.learning for p in points]),
        np.array([p.losses[name] for p in points]),
        np.array([p.stderrs.get(name, 0.0) for p in points]),
    )


def _points(run: Sequence[Point], name: str) -> list[Point]:
    """The points after step 0 that measured ``name``."""
    return [p for p in run if p.step > 0 and p.learning > 0 and name in p.losses]
