"""Which runs a setting has, and in which order: every setting gets a first seed early."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.benchmarks.settings import oracle
from tests.benchmarks.settings.declared import Setting
from tests.benchmarks.settings.runs import Log

Spec = dict[str, Any]

FIRST: dict[str, Spec] = {
    "uniform": {"name": "uniform"},
    "proportional": {"name": "proportional"},
    "mixing_law": {"name": "mixing_law"},
    "foster": {"name": "foster"},
}
"""What every setting has in any case: the simple mixes, the law, the paper's rule."""

LATER: dict[str, Spec] = {
    "doremi_heldout": {"name": "doremi", "signal": "validation"},
    "odm_fair": {"name": "odm", "signal": "validation", "scale": 5.0},
    "detected": {"name": "constant"},
    "foster_uniform": {"name": "foster", "start": "uniform"},
    "uniform_longer": {"name": "uniform"},
    "mixing_law_budget": {"name": "mixing_law"},
}
"""The rivals at fair settings, the detected shares kept, :data:`LONGER`, :data:`BUDGETED`."""

LONGER = "uniform_longer"
"""Equal shares for the steps of ``mixing_law`` and of its runs on mixes, in whole rounds."""

BUDGETED = "mixing_law_budget"
"""The law by runs on mixes within the default ``references.budget``."""

SHARES = (0.5, 0.3)
"""The target's share in the static sweep, beside 0.7."""

OF_LAW = ("mixing_law", "mixing_law_budget", "constrained", "constrained_low")
"""Rows that depend on the version of the forecasting strategies."""


@dataclass(frozen=True)
class Planned:
    """A run to make."""

    label: str
    seed: int
    spec: Spec = field(compare=False)


def fostering(setting: Setting, names: list[str], log: Log, name: str) -> list[Iterator[Planned]]:
    """Phases of a fostering setting, each made out as it is reached."""
    first, *rest = setting.seeds.report

    def of(specs: dict[str, Spec], seeds: list[int]) -> Iterator[Planned]:
        return (Planned(label, seed, spec) for seed in seeds for label, spec in specs.items())

    def best() -> Iterator[Planned]:
        yield from searching(setting, names, log, name)
        mix = oracle_mix(setting, log, name)
        if mix is not None:
            for seed in setting.seeds.report:
                yield Planned("oracle", seed, custom(names, mix))
        yield from of(FIRST, rest)

    return [of(FIRST, [first]), best(), of(LATER, setting.seeds.report)]


def searching(setting: Setting, names: list[str], log: Log, name: str) -> Iterator[Planned]:
    """The oracle's candidates, then those around the best, then the best ones' confirmation."""
    seeds, k = setting.seeds, len(names)
    mixes = oracle.coarse(k, seeds.search)
    for i, mix in enumerate(mixes):
        yield Planned(f"mix_{i:02d}", seeds.search, custom(names, mix))
    for label in ("uniform", "proportional"):
        yield Planned(label, seeds.search, FIRST[label])
    found = by_label(log, name, seeds.search)
    labels = [f"mix_{i:02d}" for i in range(len(mixes))]
    if any(label not in found for label in labels):
        return
    losses = [found[label]["losses"] for label in labels]
    closer = oracle.fine(mixes, losses, seeds.search)
    labels += [f"mix_{i:02d}" for i in range(len(mixes), len(mixes) + len(closer))]
    for label, mix in zip(labels[len(mixes) :], closer, strict=True):
        yield Planned(label, seeds.search, custom(names, mix))
    found = by_label(log, name, seeds.search)
    if any(label not in found for label in (*labels, "uniform", "proportional")):
        return  # another process makes them
    for label in sorted(found, key=lambda x: found[x]["loss"])[: oracle.BEST]:
        for seed in seeds.confirm:
            yield Planned(label, seed, found[label]["spec"])


def by_label(log: Log, name: str, seed: int) -> dict[str, Any]:
    """Static candidates of a seed: specs, first shares, mean and own losses on steering rows."""
    return {
        row["strategy"]: {
            "loss": float(np.mean(row["loss"])),
            "losses": row["loss"],
            "mix": row["shares"][0],
            "spec": row["spec"],
        }
        for row in log.of(name)
        if row["seed"] == seed and row["strategy"].startswith(("mix_", "uniform", "proportional"))
    }


def oracle_mix(setting: Setting, log: Log, name: str) -> list[float] | None:
    """The mix with the least mean loss on steering rows over the search's seeds; None: not yet."""
    seeds = [setting.seeds.search, *setting.seeds.confirm]
    each = [by_label(log, name, seed) for seed in seeds]
    there = set(each[0]).intersection(*each[1:])
    if len(there) < oracle.BEST:
        return None
    best = min(there, key=lambda label: sum(found[label]["loss"] for found in each))
    mix: list[float] = each[0][best]["mix"]
    return mix


def custom(names: list[str], mix: list[float]) -> Spec:
    """A static mix as a strategy."""
    total = sum(mix)
    weights = {n: x / total for n, x in zip(names, mix, strict=True)}
    return {"name": "custom", "weights": weights}


def expanding(
    setting: Setting, names: list[str], target: str, log: Log, name: str
) -> list[Iterator[Planned]]:
    """Phases of expanding a target, or ``a+b``, the last one made out as it is reached."""
    first, *rest = setting.seeds.report
    targets = target.split("+")

    def static(share: float) -> Spec:
        each, others = share / len(targets), (1 - share) / (len(names) - len(targets))
        return custom(names, [each if n in targets else others for n in names])

    constrained = {"name": "expand", "target": targets, "rule": "constrained"}
    main = {
        "target_only": static(1.0),
        "constrained": constrained,
        "static_0.7": static(0.7),
    }
    if len(targets) == 1:  # the paper's rule raises one
        constrained["target"] = target
        main["expand_paper"] = {"name": "expand", "target": target, "rule": "paper"}
    sweep = {f"static_{share}": static(share) for share in SHARES}
    sweep["constrained_low"] = constrained | {"target_share": {"start": 0.3, "least": 0.05}}

    def of(specs: dict[str, Spec], seeds: list[int]) -> Iterator[Planned]:
        return (Planned(label, seed, spec) for seed in seeds for label, spec in specs.items())

    def further() -> Iterator[Planned]:
        yield from of(main, rest)
        yield from of(sweep, setting.seeds.report)

    def best() -> Iterator[Planned]:
        at = [names.index(name) for name in targets]
        yield from searching_targets(setting, names, at, log, name)
        mix = target_oracle(setting, at, log, name)
        if mix is not None:
            for seed in setting.seeds.report:
                yield Planned("oracle", seed, custom(names, mix))

    return [of(main, [first]), further(), best()]


def searching_targets(
    setting: Setting, names: list[str], at: list[int], log: Log, name: str
) -> Iterator[Planned]:
    """As :func:`searching`, for the most of the targets that keeps all others."""
    seeds = setting.seeds
    coarse = oracle.coarse_of_targets(len(names), at)

    def planned(mixes: list[list[float]], start: int) -> list[Planned]:
        return [
            Planned(f"mix_{start + i:02d}", seeds.search, custom(names, mix))
            for i, mix in enumerate(mixes)
        ]

    first = planned(coarse, 0)
    yield from first
    found = changes(log, name, seeds.search)
    if any(run.label not in found for run in first):
        return
    gains = [found[run.label] for run in first]
    closer = planned(oracle.fine_of_targets(coarse, gains, at, -setting.tolerance), len(coarse))
    yield from closer
    found = changes(log, name, seeds.search)
    candidates = {run.label: run for run in (*first, *closer)}
    if any(label not in found for label in candidates):
        return  # another process makes them
    ranked = sorted(
        candidates,
        key=lambda label: oracle.kept_first(np.array([found[label]]), at, -setting.tolerance),
    )
    for label in ranked[: oracle.BEST]:
        for seed in seeds.confirm:
            yield Planned(label, seed, candidates[label].spec)


def target_oracle(setting: Setting, at: list[int], log: Log, name: str) -> list[float] | None:
    """The mix that keeps all others in each of the search's seeds and raises the targets most."""
    each = [changes(log, name, seed) for seed in (setting.seeds.search, *setting.seeds.confirm)]
    there = set(each[0]).intersection(*each[1:])
    if len(there) < oracle.BEST:
        return None
    gains = {label: np.array([found[label] for found in each]) for label in there}
    best = min(sorted(there), key=lambda n: oracle.kept_first(gains[n], at, -setting.tolerance))
    return mixes_of(log, name, setting.seeds.search)[best]


def changes(log: Log, name: str, seed: int) -> dict[str, list[float]]:
    """Each searched mix's gains since the base, as parts of the base's losses."""
    return {
        row["strategy"]: [(b - x) / b for b, x in zip(row["base"], row["loss"], strict=True)]
        for row in log.of(name)
        if row["seed"] == seed and row["strategy"].startswith("mix_")
    }


def mixes_of(log: Log, name: str, seed: int) -> dict[str, list[float]]:
    """Each searched mix's shares."""
    return {
        row["strategy"]: list(row["spec"]["weights"].values())
        for row in log.of(name)
        if row["seed"] == seed and row["strategy"].startswith("mix_")
    }
