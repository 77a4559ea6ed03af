"""What a strategy or an objective must have in common with the project's domains.

Mistakes are yielded, not raised, so that one run reports all of them.
"""

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
        yield from name_problems(strategy.weights, domains, (*key, "weights"))
        missing = [name for name in domains if name not in strategy.weights]
        if missing:
            yield Problem(
                (*key, "weights"),
                f"there is no share for {', '.join(missing)}; give 0 to leave one out",
            )
    if isinstance(strategy, AdaptiveParams):
        yield from bounds_problems(strategy.floor, strategy.cap, domains, key)


def objective_problems(
    objective: ObjectiveParams, domains: list[str], key: Key
) -> Iterator[Problem]:
    """The names that an objective gives numbers to."""
    yield from name_problems(objective.tolerance, domains, (*key, "tolerance"))
    if objective.weights is None:
        return
    yield from name_problems(objective.weights, domains, (*key, "weights"))
    missing = [name for name in domains if name not in objective.weights]
    if missing:
        yield Problem(
            (*key, "weights"),
            f"there is no weight for {', '.join(missing)}; give 0 to leave one out",
        )


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


def is_name(name: str) -> bool:
    """Whether ``name`` can be a domain's at all."""
    try:
        canonical(name)
    except VersatuneError:
        return False
    return True
