"""The forecast before training: the losses of each domain, the possible gain of a mix, the cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from versatune.artifacts import FolderRef
from versatune.data.store import TokenizedSplit
from versatune.domains import canonical
from versatune.mixing.config import (
    ExpandParams,
    ProportionalParams,
    StrategyParams,
    UniformParams,
)
from versatune.mixing.curves import points_of
from versatune.mixing.expected import expected_path, over_steps
from versatune.mixing.forecast import Noise, Route, forecast, static
from versatune.mixing.interface import Context
from versatune.mixing.law_fit import fit
from versatune.mixing.objective import make_objective
from versatune.mixing.shares import Array
from versatune.mixing.strategies import make_strategy
from versatune.mixing.traces import Trace, read_traces, traces_of
from versatune.modeling.checkpoints import CheckpointRef
from versatune.training.budget import learning_by_round, rate_by_round
from versatune.training.config import TrainParams
from versatune.training.costs import (
    FORWARD,
    Budget,
    Speed,
    needs,
    seconds_of,
    seconds_to_train,
    speed_of,
)
from versatune.training.plan_words import passes_warnings, what_is_missing
from versatune.training.reference_config import ReferenceParams

USUAL_NOISE = 0.2
"""The standard error of a change as a part of it, where no curve measured one."""

LEAST_NOISE = 1e-4
"""No strategy is played with measurements that have no error at all."""


@dataclass(frozen=True)
class EarlierStages:
    """Results of earlier stages; shares are by domain."""

    references: Mapping[str, Any]
    """``reference_losses``."""
    runs: Mapping[str, FolderRef]
    """The reference runs by domain."""
    base_losses: FolderRef
    """Of :func:`versatune.training.base_losses.base_losses`."""
    initial: Mapping[str, float]
    """The shares training starts with."""
    detected: Mapping[str, float]


def plan(
    store: FolderRef,
    base: CheckpointRef,
    train: TrainParams,
    references: ReferenceParams,
    known: EarlierStages,
) -> dict[str, Any]:
    """The content of forecast.json.

    ``strategies``: by name the mean ``weight`` over steps and ``passes`` of each domain and, where
    the references measured what a share does, its forecast ``loss`` with a 90 % interval, the
    ``objective`` and its ``gain`` over equal shares. ``headroom`` and ``advice``: what the best
    static mix gains. ``missing``: why there is no forecast, and ``remedy``: what gives one; else
    None. ``ends_early``: after which round of how many, and which round's model is kept, where the
    strategy is forecast to end the training. ``training``: what the whole of it takes; passes are
    of the rounds that are trained. ``made_for``: the parameters of training.
    Raises VersatuneError when training could not begin with these parameters.
    """
    split, steering = (TokenizedSplit.load(store, name) for name in ("train", "steering"))
    domains, loss = split.domains, _base_losses(store, known)
    context = _context(split, train, known, loss)
    learning = learning_by_round(train)
    whole = float(learning.sum())
    routes = {name: static(weights, whole) for name, weights in _static(context).items()}
    missing = what_is_missing(references, known.references, whole)
    facts = None if missing else traces_of(known.references)
    chosen = _label(train.strategy, routes)
    ended = None
    if facts is None:
        start = make_strategy(train.strategy, context).initial()
        routes[chosen] = static(start, whole)
        told = _without_law(domains, train, routes)
    else:
        traces, passes = read_traces(facts), _passes_alone(train, split, context)
        law, noise, rates = fit(traces, loss, learning=whole), _noise(traces), rate_by_round(train)
        known_to_it = replace(
            context,
            traces=traces if train.strategy.uses_law else (),
            learning=whole,
            passes=passes,
        )
        steered = expected_path(
            train.strategy, known_to_it, law, learning, rates, noise, train.steps.ends
        )
        routes[chosen] = Route(
            steered.path,
            over_steps(steered.trained, train.steps.of),
            0.0 if steered.kept == rates.size else float(rates[steered.kept - 1]),
        )
        objective = make_objective(train.objective, domains, loss, context.reference_loss)
        told = forecast(domains, law, objective, routes, whole, passes, noise)
        if (after := len(steered.trained)) < rates.size:
            ended = {"after": after, "of": rates.size, "kept": steered.kept}
    part = train.steps.ends[ended["after"] - 1] / train.steps.total if ended else 1.0
    budget = Budget(train, split, routes[chosen].path[0][0])
    _add_passes(told, domains, budget, {chosen: part})
    targets = _targets(train.strategy)
    over = told["strategies"][chosen].get("above_tolerance")
    return {
        **told,
        "strategy": chosen,
        "targets": targets,
        "missing": missing and missing.why,
        "remedy": missing and missing.remedy,
        "ends_early": ended,
        "base": dict(zip(domains, loss.tolist(), strict=True)),
        "tolerance_broken": None if over is None else [n for n in over if n not in targets],
        "training": _training(
            base,
            train,
            steering,
            budget,
            routes[chosen].weights,
            speed_before(references, known),
        ),
        "references_seconds": seconds_of(known.runs) if known.runs else None,
        "warnings": passes_warnings(told["strategies"][chosen]["domains"], train),
        "made_for": train.fingerprint_fields(),
    }


def _passes_alone(train: TrainParams, split: TokenizedSplit, context: Context) -> Array:
    """Passes of the entire training over each domain's rows at a share of 1, (k,)."""
    assert context.counts is not None
    alone = Budget(train, split, context.counts / context.counts.sum())
    return np.array([alone.passes(one)[j] for j, one in enumerate(np.eye(len(split.domains)))])


def _base_losses(store: FolderRef, known: EarlierStages) -> Array:
    """l(0) of the model that is trained, (k,), on the steering rows."""
    names = store.metadata["domains"]
    measured = known.base_losses.metadata.get("losses")
    if measured is None:
        curves = points_of(known.references)
        measured = {name: curves[name][0].losses[name] for name in names}
    return np.array([measured[name] for name in names], dtype=np.float64)


def _context(
    split: TokenizedSplit, train: TrainParams, known: EarlierStages, loss: Array
) -> Context:
    entries = known.references["domains"]
    losses = [entries[name]["nats_per_token"] for name in split.domains]
    return Context(
        domains=split.domains,
        initial=np.array([known.initial[name] for name in split.domains]),
        detected=np.array([known.detected[name] for name in split.domains]),
        counts=split.amounts(train.unit),
        reference_loss=None if None in losses else np.array(losses, dtype=np.float64),
        base_loss=loss,
        objective=train.objective,
        rounds=train.rounds,
    )


def _static(context: Context) -> dict[str, Array]:
    assert context.detected is not None
    return {
        "uniform": make_strategy(UniformParams(), context).initial(),
        "proportional": make_strategy(ProportionalParams(), context).initial(),
        "detected": context.detected / context.detected.sum(),
    }


def _label(strategy: StrategyParams, routes: Mapping[str, Route]) -> str:
    """The chosen strategy's name, distinct from a fixed mix of the same name."""
    same = strategy in (UniformParams(), ProportionalParams())
    return strategy.name if same or strategy.name not in routes else f"{strategy.name} (chosen)"


def _noise(traces: Sequence[Trace]) -> Noise:
    """Standard errors by the runs before the training."""
    changes = [np.abs(np.log(t.losses[1:] / t.losses[0])) for t in traces]
    parts = [t.stderrs[1:] / np.maximum(c, 1e-6) for t, c in zip(traces, changes, strict=True)]
    every = np.vstack(parts)
    every[(every == 0) | np.isnan(every)] = USUAL_NOISE
    errors = np.median(np.vstack([t.stderrs[1:] for t in traces]), axis=0)
    return Noise(np.asarray(np.median(every, axis=0)), np.maximum(errors, LEAST_NOISE))


def _without_law(
    domains: Sequence[str], train: TrainParams, routes: Mapping[str, Route]
) -> dict[str, Any]:
    """As :func:`forecast`, with only shares: a chosen strategy's are those it starts with."""
    return {
        "objective": train.objective.kind,
        "learning": None,
        "headroom": None,
        "advice": None,
        "strategies": {
            name: {
                "domains": {
                    domain: {"weight": float(route.weights[j])} for j, domain in enumerate(domains)
                }
            }
            for name, route in routes.items()
        },
    }


def _add_passes(
    told: Mapping[str, Any], domains: Sequence[str], budget: Budget, parts: Mapping[str, float]
) -> None:
    """``parts``: of the steps, by strategy, where it does not train for all of them."""
    for strategy, entry in told["strategies"].items():
        weights = np.array([entry["domains"][name]["weight"] for name in domains])
        passes = parts.get(strategy, 1.0) * budget.passes(weights)
        for name, seen in zip(domains, passes, strict=True):
            entry["domains"][name]["passes"] = float(seen) if np.isfinite(seen) else None


def _targets(strategy: StrategyParams) -> list[str]:
    """The domains that the strategy raises, unless it is all of them."""
    if not isinstance(strategy, ExpandParams):
        return []
    return [canonical(name) for name in strategy.targets]


def speed_before(references: ReferenceParams, known: EarlierStages) -> Speed | None:
    """The speed of the base model in the runs before the training.

    Estimated from its forward passes if there were none, or only runs of a proxy.
    """
    forward = known.base_losses.metadata.get("tokens_per_second")
    if forward is not None and (references.proxy is not None or not known.runs):
        return Speed(forward / FORWARD, "forward passes, of which a step is taken to cost three")
    measured = references.mode == "measure"
    return speed_of(known.runs, "the reference runs" if measured else "the runs on mixes")


def _training(
    base: CheckpointRef, train: TrainParams, steering: TokenizedSplit, budget: Budget,
    weights: Array, speed: Speed | None,
) -> dict[str, Any]:  # fmt: skip
    """The cost of all steps at the mean ``weights`` (k,) of the chosen strategy."""
    spent = budget.spent(budget.passes(weights))
    return {
        "steps": train.steps.total,
        "tokens": round(spent.tokens),
        "supervised_tokens": round(spent.supervised),
        "seconds": seconds_to_train(train, steering, spent.tokens, speed) if speed else None,
        "tokens_per_second": speed.tokens_per_second if speed else None,
        "measured_on": speed.source if speed else None,
        **needs(base, train, spent),
    }
