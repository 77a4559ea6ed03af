"""What a run did to the domains' losses: the shares of each stretch, and the losses after it.

A training, a run on one domain alone (a reference) and a short run on a fixed mix leave the same
record, so that a mixing law (:mod:`versatune.mixing.law`) is fitted to all of them together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np

from versatune.mixing.curves import Point, points_of
from versatune.mixing.shares import Array


@dataclass(frozen=True)
class Trace:
    """n stretches of training of one model; row 0 of ``losses`` is the base model."""

    weights: Array
    """Shares of each stretch, shape (n, k)."""
    learning: Array
    """Learning rate over its peak, summed over the steps of each stretch, shape (n,)."""
    rate: Array
    """Learning rate over its peak at the end of each stretch, shape (n,)."""
    passes: Array
    """How often each domain's rows were seen at each measurement, shape (n + 1, k)."""
    losses: Array
    """Held-out nats per token, shape (n + 1, k); NaN where a domain was not measured."""
    stderrs: Array
    """Of ln(loss / base model's loss), paired by row, shape (n + 1, k); 0 where not known."""

    def to_json(self) -> dict[str, Any]:
        """As JSON types; what was not measured is None."""
        return {f.name: _listed(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """From :meth:`to_json`."""
        return cls(**{f.name: np.array(value[f.name], dtype=np.float64) for f in fields(cls)})

    @classmethod
    def begin(cls, base: Array) -> Self:
        """Nothing trained yet; ``base`` (k,) are the base model's losses."""
        none, k = np.zeros(0), base.size
        zeros = np.zeros((1, k))
        return cls(np.zeros((0, k)), none, none, zeros, base[None, :], zeros)

    def then(
        self,
        weights: Array,
        learning: float,
        rate: float,
        passes: Array | None,
        losses: Array,
        stderrs: Array,
    ) -> Self:
        """The trace with one more stretch; ``passes`` (k,) after it, None where not known."""
        seen = self.passes[-1] if passes is None else passes
        return type(self)(
            np.vstack([self.weights, weights]),
            np.append(self.learning, learning),
            np.append(self.rate, rate),
            np.vstack([self.passes, seen]),
            np.vstack([self.losses, losses]),
            np.vstack([self.stderrs, stderrs]),
        )


def traces_of(reference_losses: Mapping[str, Any]) -> dict[str, Any] | None:
    """The traces in ``reference_losses`` as JSON with ``domains``; None without any that tells.

    Those of the runs on mixes, where there are some; else of the runs on one domain alone, if they
    measured the other domains too. Both together would say less: a run that sees no row of a domain
    forgets it as no mix does.
    """
    domains = list(reference_losses["domains"])
    told = []
    for mix in reference_losses.get("mixes") or []:
        weights = np.array([mix["weights"][name] for name in domains])
        points = [Point.model_validate(p) for p in mix["curve"]]
        told.append(_of_points(points, domains, weights))
    if told:
        return {"domains": domains, "traces": [trace.to_json() for trace in told]}
    found = [
        _of_points(run, domains, _alone(name, domains))
        for name, run in points_of(reference_losses).items()
    ]
    told = [t for t in found if (~np.isnan(t.losses[1:])).any(axis=0).all()]
    if not told or len(told) < len(domains):
        return None
    return {"domains": domains, "traces": [trace.to_json() for trace in told]}


def read_traces(value: Mapping[str, Any]) -> tuple[Trace, ...]:
    """The traces of :func:`traces_of`."""
    return tuple(Trace.from_json(trace) for trace in value["traces"])


def _alone(name: str, domains: Sequence[str]) -> Array:
    return np.array([float(name == other) for other in domains])


def _of_points(points: Sequence[Point], domains: Sequence[str], weights: Array) -> Trace:
    """A run on fixed ``weights`` (k,)."""
    n = len(points) - 1
    learning = np.array([p.learning for p in points])
    missing, none = dict.fromkeys(domains, np.nan), dict.fromkeys(domains, 0.0)
    drawn = {name: float(weight > 0) for name, weight in zip(domains, weights, strict=True)}
    passes = [
        [p.passes_by_domain.get(name, p.passes * some) for name, some in drawn.items()]
        for p in points
    ]
    return Trace(
        weights=np.tile(weights, (n, 1)),
        learning=np.diff(learning),
        rate=np.array([p.rate for p in points[1:]]),
        passes=np.array(passes, dtype=np.float64),
        losses=np.array([[{**missing, **p.losses}[d] for d in domains] for p in points]),
        stderrs=np.array([[{**none, **p.stderrs}[d] for d in domains] for p in points]),
    )


def _listed(value: Array) -> Any:
    listed: Any = np.where(np.isnan(value), np.array(None), value.astype(object)).tolist()
    return listed
