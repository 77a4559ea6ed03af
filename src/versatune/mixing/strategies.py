"""Making a strategy from its parameters and what is known before training."""

import importlib

from versatune.domains import choose
from versatune.errors import VersatuneError
from versatune.mixing import formulas
from versatune.mixing.adaptive import Expand
from versatune.mixing.config import CustomParams, ExpandParams, StaticParams, StrategyParams
from versatune.mixing.interface import Context, Decision, Signals, Strategy
from versatune.mixing.shares import Array, bounded_shares, shares
from versatune.mixing.steering import Constrained

__all__ = [
    "Context",
    "Decision",
    "Signals",
    "StaticParams",
    "Strategy",
    "StrategyParams",
    "initial_shares",
    "make_strategy",
]


def make_strategy(params: StrategyParams, context: Context) -> Strategy:
    """The strategy of ``params``. Raises VersatuneError when ``context`` lacks what it needs."""
    if params.needs_reference and context.reference_loss is None:
        raise VersatuneError(
            f"strategy {params.name!r} needs reference losses: run the mixture pipeline with "
            "references switched on, or choose potential_source: progress where the strategy has "
            "it."
        )
    module, _, name = params.made_by.partition(":")
    kind = getattr(importlib.import_module(f"versatune.mixing.{module}"), name)
    made: Strategy = kind(params, context, _start(params, context))
    return made


def expand(params: ExpandParams, context: Context, start: Array) -> Strategy:
    """The strategy of one of its rules."""
    return (Constrained if params.rule == "constrained" else Expand)(params, context, start)


def initial_shares(params: StaticParams, context: Context, floor: float) -> Array:
    """The shares training starts with, shape (k,); none below ``floor`` but custom ones.

    Raises VersatuneError when ``context`` lacks what is needed or the floor leaves no room.
    """
    start = shares(_start(params, context))
    if isinstance(params, CustomParams):
        return start
    k = len(context.domains)
    if floor * k > 1:
        raise VersatuneError(
            f"a floor of {floor} is too much for {k} domains: at most {1 / k:.4g}."
        )
    return bounded_shares(start, floor, 1.0)


def _start(params: StrategyParams, context: Context) -> Array:
    """The first shares: the strategy's own, or the ones given to the training."""
    match params.starts_from:
        case "uniform":
            return formulas.uniform_weights(len(context.domains))
        case "proportional":
            counts = _needed(context.counts, "proportional", "the counts of the tokenised store")
            return formulas.temperature_proportional(counts, getattr(params, "temperature", 1.0))
        case "inverse":
            if len(context.domains) < 2:
                raise VersatuneError("strategy 'inverse' needs at least two domains.")
            if context.detected is None and context.initial is not None:
                return context.initial  # what stands in the place of shares that are in doubt
            return formulas.inverse_weights(
                _needed(context.detected, params.name, "a knowledge distribution")
            )
        case "custom":
            assert isinstance(params, CustomParams)
            return _custom(params, context.domains)
        case _:
            given = context.initial if context.initial is not None else context.detected
            return _needed(given, params.name, "an initial mixture or a knowledge distribution")


def _needed(value: Array | None, name: str, what: str) -> Array:
    if value is None:
        raise VersatuneError(f"strategy {name!r} needs {what}, and there is none.")
    return value


def _custom(params: CustomParams, domains: tuple[str, ...]) -> Array:
    given = params.weights
    for name in given:
        choose(name, domains, "strategy.weights")
    missing = [name for name in domains if name not in given]
    if missing:
        raise VersatuneError(
            f"strategy.weights names no share for {', '.join(missing)}; give 0 to leave one out."
        )
    return shares([given[name] for name in domains])
