"""Reasons to doubt a finished training, in sentences: pure functions of artifacts.

Each sentence says what was seen, in which domains, and which parameter to change.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from versatune.mixing.config import ExpandParams, FosterParams, StrategyParams
from versatune.mixing.interface import ROLLED_BACK

ROUNDS_AGO = 2
"""The mean loss counts as rising after this many rounds above its lowest value: one round may be
noise."""

RISE = 0.01
"""The mean loss must have risen by this part of its lowest value: seeds differ by as much."""


def reference_warnings(references: Mapping[str, Any]) -> list[str]:
    """About ``reference_losses``: runs cut off by their step limit.

    A schedule that anneals always takes a run to its limit: if its loss was no longer falling
    there, no sentence is made.
    """
    cut = [
        name
        for name, entry in references["domains"].items()
        if entry.get("at_limit") and entry.get("still_falling", True)
    ]
    if not cut:
        return []
    steps = max(references["domains"][name]["steps_run"] for name in cut)
    whose = "all domains" if len(cut) == len(references["domains"]) > 1 else _names(cut)
    return [
        f"the reference runs of {whose} ended at their limit of {steps} steps while their loss "
        "still fell: references are too high, so gamma is too small. Raise references.max_steps."
    ]


def training_warnings(
    history: pd.DataFrame, references: Mapping[str, Any] | None, strategy: StrategyParams
) -> list[str]:
    """About ``mixture_history``: gammas that stayed 0, and a mean loss that was lowest before."""
    trained = history if history.empty else history[history["round"] > 0]
    if trained.empty:
        return []
    return [*_no_potential(trained, references, strategy), *_was_lower(history)]


def lowest_rounds(history: pd.DataFrame) -> dict[str, int]:
    """For each domain the round with its lowest held-out loss (the first of equal ones)."""
    known = history.dropna(subset="validation_loss").sort_values("round", kind="stable")
    best = known.groupby("domain", sort=False)["validation_loss"].idxmin()
    return {str(known.loc[i, "domain"]): int(known.loc[i, "round"]) for i in best}


def _no_potential(
    trained: pd.DataFrame, references: Mapping[str, Any] | None, strategy: StrategyParams
) -> list[str]:
    """Domains whose gamma was 0 in every round, where the strategy goes by gamma.

    With references also those whose gamma was 0 in the last half of the rounds or more: the loss
    went on falling below its reference.
    """
    follows_gamma = isinstance(strategy, FosterParams) or (
        isinstance(strategy, ExpandParams) and strategy.rule == "paper"
    )
    if not (follows_gamma or strategy.needs_reference):
        return []
    gamma = trained.pivot_table(index="round", columns="domain", values="learnable_potential")
    gamma = gamma.reindex(columns=trained["domain"].unique())
    rounds, zeros = len(gamma), {str(d): _last_zeros(gamma[d]) for d in gamma}
    name = strategy.name
    by_progress = getattr(strategy, "potential_source", "reference") == "progress"
    enough = rounds if by_progress else max(ROUNDS_AGO, (rounds + 1) // 2)
    still = [d for d, last in zeros.items() if last >= min(enough, rounds)]
    if not still:
        return []
    last = min(zeros[d] for d in still)
    when = "every round" if last == rounds else f"the last {last} of {rounds} rounds"
    cause = "no held-out loss fell" if by_progress else "every reference lies above the loss"
    remedy = "" if by_progress else " Raise references.max_steps, or train with other references."
    if len(still) == len(gamma.columns):
        so = "did not move the shares for what is left to learn"
        if isinstance(strategy, FosterParams):
            so = "trained as `constant` would have"
        elif isinstance(strategy, ExpandParams):
            so = "never opened its gate" if last == rounds else "kept its gate closed"
        return [f"every gamma was 0 in {when} ({cause}): `{name}` {so}.{remedy}"]
    if by_progress:
        return []
    lead = f"gamma of {_names(still)} was 0 in {when}, since the reference lies above the loss"
    then = trained[trained["round"] > trained["round"].max() - last]
    return [f"{lead} of training ({_levels(then, references, still)}).{remedy}"]


def _last_zeros(gamma: pd.Series) -> int:
    """In how many rounds up to the last gamma was 0; rounds without one count as those around."""
    values = gamma.dropna().tolist()
    zeros = next((n for n, value in enumerate(reversed(values)) if value != 0), len(values))
    return len(gamma) if values and zeros == len(values) else zeros


def _levels(
    trained: pd.DataFrame, references: Mapping[str, Any] | None, domains: Sequence[str]
) -> str:
    highest = trained.groupby("domain")["validation_loss"].max()
    known = (references or {}).get("domains", {})
    return "; ".join(
        f"{d}: reference {known[d]['nats_per_token']:.3f}, loss {highest[d]:.3f} at most"
        for d in domains
        if known.get(d, {}).get("nats_per_token") is not None
    )


def _was_lower(history: pd.DataFrame) -> list[str]:
    """Whether the mean loss was clearly lower in an earlier round than the model's."""
    last = history[history["round"] == history["round"].max()]
    if ROLLED_BACK in str(last["reason"].iloc[0]):
        return []  # the model is not the last round's
    known = history.dropna(subset="validation_loss")
    mean: dict[Any, float] = known.groupby("round")["validation_loss"].mean().to_dict()
    if not mean:
        return []
    best, end = min(mean, key=mean.__getitem__), max(mean)
    risen = end - best >= ROUNDS_AGO and mean[end] > (1 + RISE) * mean[best]
    if not risen and not (best == 0 < end):
        return []
    when = f"after round {best}" if best else "before training"
    return [
        f"the mean held-out loss was lowest {when} ({mean[best]:.3f}) and is {mean[end]:.3f} after "
        f"round {end}, which is the model that is kept. Lower train.rounds or train.learning_rate."
    ]


def _names(domains: Sequence[str]) -> str:
    return domains[0] if len(domains) == 1 else f"{', '.join(domains[:-1])} and {domains[-1]}"
