"""The declared objective and its tolerance, on the rows that results are of."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from versatune.domains import canonical
from versatune.evaluation.results import LOSS
from versatune.intervals import Z95
from versatune.mixing.config import ExpandParams, InStderrs, ObjectiveParams, StrategyParams
from versatune.mixing.curves import points_of
from versatune.mixing.objective import IN_WORDS, Objective, make_objective

LEAST = 1e-9
"""The lowest value that a loss counts as, so that it has a logarithm."""

ByDomain = Mapping[str, float]


@dataclass(frozen=True)
class DeclaredObjective:
    """The objective of training, evaluated on results; losses are by domain.

    References are of steering rows. On other rows a domain's reference is the same part of the base
    model's loss there.
    """

    params: ObjectiveParams = field(default_factory=ObjectiveParams)
    parts: ByDomain | None = None
    """References as parts of the base model's losses (:func:`reference_parts`), for ``worst``."""
    targets: tuple[str, ...] = ()
    """The domains that ``expand`` was to raise: then it is about these, within the tolerance."""

    @property
    def words(self) -> str:
        """The label of the value."""
        return IN_WORDS[self.params.kind]

    @property
    def name(self) -> str:
        """Its name in log lines: the losses' metric if it is their mean."""
        return LOSS if self.params.kind == "mean" else self.words

    def of(self, base: ByDomain) -> Objective:
        """The objective for a base model with these losses.

        Raises VersatuneError where ``worst`` has no references, and for unknown names.
        """
        first = {domain: max(level, LEAST) for domain, level in base.items()}
        reference = None if self.parts is None else [self.parts[d] * first[d] for d in first]
        return make_objective(self.params, tuple(first), list(first.values()), reference)

    def value(self, loss: ByDomain, base: ByDomain) -> float:
        """The objective at ``loss``; less is better. NaN where a loss is not finite."""
        levels = [loss[domain] for domain in base]
        if not np.isfinite([*levels, *base.values()]).all():
            return math.nan
        return self.of(base).value(np.maximum(levels, LEAST))

    def per_loss(self, bases: Sequence[ByDomain]) -> dict[str, float] | None:
        """What the value changes by for a nat per token of each domain; None where that varies.

        ``bases``: the losses of the base models, of which the mean counts.
        """
        mean = {name: math.fsum(b[name] for b in bases) / len(bases) for name in bases[0]}
        if self.params.kind == "worst" or not np.isfinite(list(mean.values())).all():
            return None
        _, each = self.of(mean).surrogate(list(mean.values()))
        return dict(zip(mean, map(float, each), strict=True))

    def beyond(self, loss: ByDomain, base: ByDomain, stderr: ByDomain) -> list[str]:
        """Domains above their limit by more than noise; ``stderr`` of ln(loss / base), by row."""
        known = {d: math.isfinite(loss[d]) and math.isfinite(base[d]) for d in base}
        first = {d: base[d] if known[d] else 1.0 for d in base}
        levels = [max(loss[d], LEAST) if known[d] else 1.0 for d in base]
        # No reference is needed to see who rose.
        plain = DeclaredObjective(self.params.model_copy(update={"kind": "mean", "weights": None}))
        broken = plain.of(first).broken(levels, [stderr[d] for d in base])
        # A loss that is no number is above any limit.
        return [d for d, over in zip(base, broken, strict=True) if over or not known[d]]

    @property
    def allowance(self) -> str:
        """The tolerance in words."""
        given = self.params.tolerance
        if isinstance(given, dict):
            return "their own"
        if isinstance(given, InStderrs):
            return f"{given.stderrs:g} standard errors"
        return f"{100 * given:g} %"


def declared_by(
    objective: ObjectiveParams, strategy: StrategyParams, references: Mapping[str, Any] | None
) -> DeclaredObjective:
    """The declared objective; ``references``: the ``reference_losses``."""
    targets = strategy.targets if isinstance(strategy, ExpandParams) else ()
    return DeclaredObjective(
        objective, reference_parts(references), tuple(canonical(name) for name in targets)
    )


def reference_parts(references: Mapping[str, Any] | None) -> dict[str, float] | None:
    """References as parts of the base model's losses on the same rows; None where not known."""
    if not references:
        return None
    curves = points_of(references)
    entries = references["domains"]
    if set(curves) != set(entries):
        return None
    return {
        name: float(entry["nats_per_token"]) / curves[name][0].losses[name]
        for name, entry in entries.items()
    }


def change_stderrs(table: pd.DataFrame, low: str = "low", high: str = "high") -> pd.Series:
    """Standard errors of ln(tuned / base), from the 95 % interval of the change of a loss.

    ``table`` has ``base`` and the interval's ends; 0 where it has none.
    """
    if not {low, high} <= set(table):
        return pd.Series(0.0, index=table.index)
    first, last = (1 + table[end].astype(float) / table["base"] for end in (low, high))
    errors = np.log((last / first).to_numpy()) / (2 * Z95)
    return pd.Series(np.nan_to_num(errors), index=table.index)
