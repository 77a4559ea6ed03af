"""What a plan says: why there is no forecast, and which domains are seen often."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from versatune.domains import canonical
from versatune.mixing.traces import traces_of
from versatune.training.config import TrainParams
from versatune.training.costs import MANY_PASSES
from versatune.training.reference_config import ReferenceParams


class Missing(NamedTuple):
    """Why there is no forecast, and what gives one; both as parts of sentences."""

    why: str
    remedy: str


def what_is_missing(
    references: ReferenceParams, losses: Mapping[str, Any], learning: float
) -> Missing | None:
    """None where the runs measured what a share does, and the training's ``learning`` isn't 0."""
    if learning <= 0:
        return Missing(
            "every step is warm-up, at a learning rate of 0",
            "more training steps, or train.warmup_ratio: 0, leave one that learns",
        )
    if references.mode == "none":
        return Missing(
            "references.mode is none",
            "references.mode: mixes makes one, for a tenth of the training's steps",
        )
    if traces_of(losses) is None:
        if references.mixes and references.budget is not None:
            return Missing(
                "references.budget leaves no room for runs that measure what shares do",
                "more training steps, or references.budget: null, make room for one",
            )
        return Missing(
            "no run before the training measured what shares do (references.mixes)",
            "references.mixes: 2 makes one",
        )
    return None


def passes_warnings(domains: Mapping[str, Mapping[str, Any]], train: TrainParams) -> list[str]:
    """Warnings about domains that are seen often, or more often than their cap; ``domains`` of a
    strategy."""
    said, often = [], []
    for name, entry in domains.items():
        seen, cap = entry["passes"], _cap(train, name)
        if seen is None:
            said.append(f"{name} has a share of {entry['weight']:.3f} and no training rows.")
        elif cap is not None and seen > cap:
            then = {
                "repeat": "it is repeated anyway",
                "redistribute": "its share then goes to the others",
                "stop": "training will stop with an error",
            }[train.on_exhausted]
            said.append(f"{name} would be seen {seen:.1f} times; its epoch_cap is {cap:g}: {then}.")
        elif seen > MANY_PASSES:
            often.append(f"{name} {seen:.1f}")
    if often:
        said.append(
            f"Rows are seen more than {MANY_PASSES:g} times ({', '.join(often)}). Later passes "
            "teach less; the forecast takes that into account. Add rows, train fewer steps, or "
            "lower the shares (train.epoch_cap with on_exhausted: redistribute)."
        )
    return said


def _cap(train: TrainParams, name: str) -> float | None:
    cap = train.epoch_cap
    return cap.get(canonical(name)) if isinstance(cap, dict) else cap
