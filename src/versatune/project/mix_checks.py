"""Checks of what a strategy or an objective must have in common with the project's domains."""

from collections.abc import Iterator, Mapping
from typing import Any

from versatune.domains import canonical, unknown
from versatune.errors import VersatuneError
from versatune.mixing.config import (
    AdaptiveParams,
    CustomParams,
    ExpandParams,
    ObjectiveParams,
    StrategyParams,
)
from versatune.mixing.formulas import uniform_weights
from versatune.mixing.shares import bounded_shares
from versatune.mixing.steering import MOST_DOMAINS, learns_effects, too_many_domains
from versatune.project.blocks import Key, Problem


def strategy_problems(strategy: StrategyParams, domains: list[str], key: Key) -> Iterator[Problem]:
    """A strategy's targets, weights and bounds; ``key`` is where it is written."""
    for target in strategy.targets if isinstance(strategy, ExpandParams) else ():
        if problem := unknown(target, domains):
            yield Problem((*key, "target"), problem)
    if learns_effects(strategy) and len(domains) > MOST_DOMAINS:
        yield Problem(key, too_many_domains(strategy.name, len(domains)))
    if isinstance(strategy, CustomParams):
        yield from _one_for_each(strategy.weights, domains, "share", (*key, "weights"))
    if isinstance(strategy, AdaptiveParams):
        yield from bounds_problems(strategy.floor, strategy.cap, domains, key)


def objective_problems(
    objective: ObjectiveParams, domains: list[str], key: Key
) -> Iterator[Problem]:
    """The names that an objective gives numbers to."""
    yield from name_problems(objective.tolerance, domains, (*key, "tolerance"))
    if objective.weights is not None:
        yield from _one_for_each(objective.weights, domains, "weight", (*key, "weights"))


def bounds_problems(floor: float, cap: float, domains: list[str], key: Key) -> Iterator[Problem]:
    """Whether any shares satisfy a floor and a cap."""
    try:
        bounded_shares(uniform_weights(len(domains)), floor, cap)
    except ValueError:
        k = len(domains)
        yield Problem(
            key,
            f"no shares of {k} domains fit a floor of {floor:g} and a cap of {cap:g}: the floor is "
            f"at most {1 / k:.4g}, the cap at least that",
        )


def name_problems(values: Any, domains: list[str], key: Key) -> Iterator[Problem]:
    """The names of a mapping that are no domains; nothing where it is no mapping."""
    for name in values if isinstance(values, Mapping) else ():
        problem = unknown(name, domains) if is_name(name) else f"{name!r} is no domain's name"
        if problem:
            yield Problem((*key, name), problem)


def _one_for_each(
    values: Mapping[str, float], domains: list[str], what: str, key: Key
) -> Iterator[Problem]:
    """Names that are no domains, and domains that have no ``what``."""
    yield from name_problems(values, domains, key)
    if missing := [name for name in domains if name not in values]:
        yield Problem(key, f"there is no {what} for {', '.join(missing)}; give 0 to leave one out")


def is_name(name: str) -> bool:
    """Whether ``name`` can be a domain's at all."""
    try:
        canonical(name)
    except VersatuneError:
        return False
    return True
