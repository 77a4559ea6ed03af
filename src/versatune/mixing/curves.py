"""The curves of the runs that are made before training: what they measure, and what they reached.

A reference run trains on only one domain and measures it every few steps, and all others several
times on its way; a run on a mix measures all domains.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from versatune.mixing.shares import Array


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
    passes_by_domain: dict[str, float] = {}
    """The same by domain, in a run on a mix."""
    rate: float = 0.0
    """Learning rate over its peak at the time; 0 at the base model."""


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


def points_of(value: Mapping[str, Any]) -> dict[str, list[Point]]:
    """The curves of ``reference_losses``, by domain; empty where a file has none."""
    domains = value["domains"]
    return {
        name: [Point.model_validate(p) for p in entry["curve"]]
        for name, entry in domains.items()
        if entry.get("curve")
    }
