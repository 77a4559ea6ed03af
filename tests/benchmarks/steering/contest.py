"""The strategies' own code, trained in simulated worlds against the best static mix.

    python -m tests.benchmarks.steering.contest [--worlds wide,sample] [--rounds 4,8,20]
        [--schedules cosine,constant] > table.csv

For each world, schedule and number of rounds: the part of the oracle's gain over uniform that a
strategy takes (1 = all of it), and its gain over uniform and over proportional. The oracle is the
best static mix of a search on the true losses. In worlds for expansion: the target's gain as a part
of target-only training's, and the least change of the others. Means over seeds with 95 % intervals.
"""

import argparse
import csv
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from tests.benchmarks.steering.worlds import (
    EXPAND,
    FOSTER,
    REPORTED,
    TUNING,
    Array,
    Meter,
    State,
    World,
    budget,
)
from versatune.intervals import mean_stderr, t_interval
from versatune.mixing.config import ObjectiveParams, StrategyParams
from versatune.mixing.interface import Context, Signals
from versatune.mixing.strategies import make_strategy
from versatune.mixing.traces import Trace
from versatune.training.mix_runs import mixes

DOMAINS = tuple("abcdef")

STEPS = 400.0
"""Optimiser steps of a training at a constant rate, which is 1 in the worlds."""

N_MIXES = 2
"""Short runs on mixes before a training."""

PATIENCE = 3
"""Measurements without a new minimum before a reference run ends."""

FOSTERING: dict[str, dict[str, Any]] = {
    "proportional": {"name": "proportional"},
    "foster_uniform": {"name": "foster", "start": "uniform"},
    "odm": {"name": "odm"},
    "odm_fair": {"name": "odm", "signal": "validation", "scale": 5.0},
    "doremi": {"name": "doremi"},
    "doremi_fair": {"name": "doremi", "signal": "validation"},
    "mixing_law": {"name": "mixing_law"},
    "mixing_law_without_runs": {"name": "mixing_law", "_runs": False},
}
EXPANDING: dict[str, dict[str, Any]] = {
    "static_0.5": {"_share": 0.5},
    "static_0.7": {"_share": 0.7},
    "static_0.8": {"_share": 0.8},
    "expand_paper": {"name": "expand", "rule": "paper", "target": "a"},
    "constrained": {"name": "expand", "target": "a", "rule": "constrained"},
    "constrained_without_runs": {
        "name": "expand",
        "target": "a",
        "rule": "constrained",
        "_runs": False,
    },
}


def static(world: World, mixes: Array, parts: Array) -> Array:
    """True losses (n, k) at the end of training on each of ``mixes`` (n, k)."""
    state = world.begin(len(mixes))
    for part in parts:
        state = world.train(state, mixes, float(part))
    return world.loss(state)


def search(score: Callable[[Array], Array], start: Array, steps: int = 14, n: int = 200) -> Array:
    """The mix of least score: random ones around the best so far, ever nearer."""
    rng = np.random.default_rng(0)
    best, least, width = start, float(score(start[None])[0]), 1.5
    for _ in range(steps):
        tried = best * np.exp(width * rng.standard_normal((n, start.size)))
        tried /= tried.sum(1, keepdims=True)
        found = score(tried)
        if found.min() < least:
            best, least = tried[int(found.argmin())], float(found.min())
        width *= 0.7
    return best


def references(world: World, seed: int, total: float) -> Array:
    """Reference losses, by runs on each domain alone that anneal and stop early."""
    rng = np.random.default_rng([seed, 1])
    parts = budget(20, "cosine")
    reached = []
    for j in range(len(DOMAINS)):
        meter, state = Meter(world, seed, rng), world.begin(1)
        before = world.loss(state)[0]
        own = [float(meter.read(before)[j])]
        for part in parts * total / parts.sum():
            state = world.train(state, np.eye(len(DOMAINS))[j][None], float(part))
            after = world.loss(state)[0]
            meter.moved(before, after, float(part))
            before = after
            own.append(float(meter.read(after)[j]))
            if len(own) - 1 - int(np.argmin(own)) >= PATIENCE:
                break
        reached.append(min(own))
    return np.array(reached)


def on_mixes(world: World, seed: int, total: float) -> tuple[Trace, ...]:
    """Short runs on mixes, a tenth of ``total`` in all, as the library's own."""
    rng, traces = np.random.default_rng([seed, 4]), []
    for mix in mixes(len(DOMAINS), N_MIXES):
        meter, state = Meter(world, seed, rng), world.begin(1)
        before = world.loss(state)[0]
        trace, errors = Trace.begin(meter.read(before)), np.zeros(len(DOMAINS))
        part = 0.1 * total / N_MIXES / 3
        for rate in (2 / 3, 1 / 3, 0.0):
            state = world.train(state, mix[None], part)
            after = world.loss(state)[0]
            errors = errors + meter.moved(before, after, part)
            before = after
            trace = trace.then(mix, STEPS * part, rate, state.seen[0], meter.read(after), errors)
        traces.append(trace)
    return tuple(traces)


def memory(state: State) -> Array:
    """Training losses as parts of held-out ones: rows seen again are remembered."""
    return np.asarray(1 / (1 + 0.15 * state.seen[0]))


def play(
    world: World,
    spec: dict[str, Any],
    parts: Array,
    seed: int,
    known: tuple[Array, tuple[Trace, ...]],
    objective: ObjectiveParams,
) -> Array:
    """True losses (k,) at the end of a training steered by a strategy of the library."""
    given = {key: value for key, value in spec.items() if not key.startswith("_")}
    params: Any = TypeAdapter(StrategyParams).validate_python(given)
    meter = Meter(world, seed, np.random.default_rng([seed, 2]))
    state = world.begin(1)
    before = world.loss(state)[0]
    context = Context(
        domains=DOMAINS,
        initial=world.sizes,
        detected=world.sizes,
        counts=world.sizes,
        reference_loss=known[0],
        base_loss=meter.read(before),
        objective=objective,
        traces=known[1] if spec.get("_runs", True) else (),
        learning=STEPS * float(parts.sum()),
        passes=world.passes * parts.sum(),
    )
    strategy = make_strategy(params, context)
    weights = strategy.initial()
    since = np.zeros(len(DOMAINS))
    for number, part in enumerate(parts, start=1):
        state = world.train(state, weights[None], float(part))
        after = world.loss(state)[0]
        error = meter.moved(before, after, float(part))
        since, before = since + error, after
        seen = meter.read(after)
        decision = strategy.update(
            Signals(
                number,
                number * 50,
                weights,
                seen,
                seen * memory(state),
                since_base_stderr=since,
                learning=STEPS * float(part),
                learning_left=STEPS * float(parts[number:].sum()),
                passes=state.seen[0],
            )
        )
        weights = decision.weights
        if decision.stop:
            break
    return before


def fostering(make: Any, seeds: range, rounds: int, schedule: str, specs: dict[str, Any]) -> Any:
    """By strategy, arrays over seeds: oracle's gain, gain over uniform, gain over proportional."""
    result: dict[str, list[list[float]]] = {name: [] for name in specs}
    for seed in seeds:
        world = make(np.random.default_rng(seed))
        parts = budget(rounds, schedule)
        uniform = np.full(len(DOMAINS), 1 / len(DOMAINS))
        ends = static(world, np.stack([uniform, world.sizes]), parts).mean(1)
        best = search(lambda m, w=world, p=parts: static(w, m, p).mean(1), uniform)
        least = float(static(world, best[None], parts).mean())
        total = float(parts.sum())
        known = references(world, seed, total), on_mixes(world, seed, total)
        for name, spec in specs.items():
            mean = play(world, spec, parts, seed, known, ObjectiveParams()).mean()
            result[name].append([1 - least / ends[0], 1 - mean / ends[0], 1 - mean / ends[1]])
    return {name: np.array(rows) for name, rows in result.items()}


def expanding(
    make: Any, seeds: range, rounds: int, schedule: str, specs: dict[str, Any], tolerance: float
) -> Any:
    """By strategy, arrays over seeds: the target's part of target-only, the least other change.

    ``oracle``: the static mix with the lowest target loss that keeps every other domain.
    """
    k = len(DOMAINS)
    target, others = np.eye(k)[0], (1 - np.eye(k)[0]) / (k - 1)
    result: dict[str, list[list[float]]] = {name: [] for name in [*specs, "oracle"]}
    for seed in seeds:
        world, parts = make(np.random.default_rng(seed)), budget(rounds, schedule)
        base = world.loss(world.begin(1))[0]
        limit = base * (1 + tolerance)
        only = base[0] - static(world, target[None], parts)[0, 0]
        total = float(parts.sum())
        known = references(world, seed, total), on_mixes(world, seed, total)
        oracle = search(_held_back(world, parts, limit), 0.7 * target + 0.3 * others, steps=20)
        for name, spec in [*specs.items(), ("oracle", {})]:
            if "name" in spec:
                end = play(world, spec, parts, seed, known, ObjectiveParams(tolerance=tolerance))
            else:
                share = spec.get("_share")
                mix = oracle if share is None else share * target + (1 - share) * others
                end = static(world, mix[None], parts)[0]
            least = float(((limit - end) / base)[1:].min())
            result[name].append([float((base[0] - end[0]) / only), least])
    return {name: np.array(rows) for name, rows in result.items()}


def _held_back(world: World, parts: Array, limit: Array) -> Callable[[Array], Array]:
    """The first domain's loss, made dear where another one's is above its limit."""

    def score(mixes: Array) -> Array:
        ends = static(world, mixes, parts)
        result: Array = ends[:, 0] + 30 * np.maximum(ends - limit, 0)[:, 1:].sum(1)
        return result

    return score


COLUMNS = (
    *("world", "tolerance", "schedule", "rounds", "strategy", "oracle_gain", "part_of_oracle"),
    *("gain_over_uniform", "gain_over_uniform_low", "gain_over_uniform_high"),
    *("gain_over_proportional", "gain_over_proportional_low", "gain_over_proportional_high"),
    *("part_of_target_gain", "part_of_target_gain_low", "part_of_target_gain_high"),
    *("least_other_change", "least_other_change_low", "least_other_change_high"),
    *("part_within_tolerance", "n_seeds"),
)
"""Gains and changes are in per cent."""

WITHIN = 0.005
"""A domain this little above its limit, as a part of its loss, counts as within it."""


def interval(name: str, values: Array) -> dict[str, float]:
    """Mean over seeds with its 95 % interval."""
    mean, error = mean_stderr(values)
    low, high = t_interval(mean, error, len(values))
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def rows_of(name: str, seeds: range, rounds: int, schedule: str, tolerance: float) -> Any:
    """The rows of the table for one world."""
    about = {"world": name, "schedule": schedule, "rounds": rounds, "n_seeds": len(seeds)}
    if name in FOSTER:
        for strategy, of in fostering(FOSTER[name], seeds, rounds, schedule, FOSTERING).items():
            yield {
                **about,
                "strategy": strategy,
                "oracle_gain": 100 * of[:, 0].mean(),
                "part_of_oracle": of[:, 1].mean() / of[:, 0].mean(),
                **interval("gain_over_uniform", 100 * of[:, 1]),
                **interval("gain_over_proportional", 100 * of[:, 2]),
            }
        return
    found = expanding(EXPAND[name], seeds, rounds, schedule, EXPANDING, tolerance)
    for strategy, of in found.items():
        yield {
            **about,
            "tolerance": tolerance,
            "strategy": strategy,
            **interval("part_of_target_gain", of[:, 0]),
            **interval("least_other_change", 100 * of[:, 1]),
            "part_within_tolerance": float((of[:, 1] >= -WITHIN).mean()),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tuning", action="store_true", help="the seeds settings are chosen on")
    parser.add_argument("--worlds", default=",".join([*FOSTER, *EXPAND]))
    parser.add_argument("--rounds", default="8")
    parser.add_argument("--schedules", default="cosine")
    parser.add_argument("--tolerance", type=float, default=0.0)
    parser.add_argument("--seeds", type=int, default=len(REPORTED), help="how many of the seeds")
    given = parser.parse_args()
    table = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    table.writeheader()
    for name in given.worlds.split(","):
        for schedule in given.schedules.split(","):
            for rounds in map(int, given.rounds.split(",")):
                seeds = (TUNING if given.tuning else REPORTED)[: given.seeds]
                for row in rows_of(name, seeds, rounds, schedule, given.tolerance):
                    table.writerow({k: _short(v) for k, v in row.items()})
                    sys.stdout.flush()


def _short(value: Any) -> Any:
    return f"{value:.3f}" if isinstance(value, float) else value


if __name__ == "__main__":
    main()
