"""Which runs a setting has, and in which order: every setting gets a first seed early."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.benchmarks.settings import RESULTS, oracle
from tests.benchmarks.settings.declared import Setting
from tests.benchmarks.settings.runs import Log, Row

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

KNOWN = "oracle_known"
"""The oracle that docs/results/settings_runs.csv has, in a log without a search of its own."""

BUDGETED = ("mixing_law_budget", "constrained_budget")
"""The law, and ``expand``, by runs on mixes within the default ``references.budget``."""

SHARES = (0.5, 0.3)
"""The target's share in the static sweep, beside 0.7."""

OF_LAW = ("mixing_law", "constrained", "constrained_low", *BUDGETED)
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

    search = Search(
        coarse=oracle.coarse(len(names), setting.seeds.search),
        fine=lambda found: oracle.fine(
            [entry["mix"] for entry in found],
            [entry["loss"] for entry in found],
            setting.seeds.search,
        ),
        key=lambda runs: float(np.mean([run["loss"] for run in runs])),
        besides=("uniform", "proportional"),
    )

    def best() -> Iterator[Planned]:
        yield from searching(search, setting, names, log, name)
        yield from of(FIRST, rest)

    def later() -> Iterator[Planned]:
        yield from of(LATER, setting.seeds.report)
        searched = any(row["strategy"].startswith("mix_") for row in log.of(name))
        mix = None if searched else known_oracle(name)
        if mix is not None:
            yield from of({KNOWN: custom(names, [mix[n] for n in names])}, setting.seeds.report)

    return [of(FIRST, [first]), best(), later()]


@dataclass(frozen=True)
class Search:
    """How the best static mix is looked for.

    ``fine``: further mixes from what the coarse ones came to; ``key``: sorts candidates by their
    runs, a run a seed; ``besides``: strategies that are candidates too.
    """

    coarse: list[list[float]]
    fine: Callable[[list[Row]], list[list[float]]]
    key: Callable[[list[Row]], Any]
    besides: tuple[str, ...] = ()


def searching(
    search: Search, setting: Setting, names: list[str], log: Log, name: str
) -> Iterator[Planned]:
    """The candidates, then those around the best, then the best ones' confirmation, the oracle.

    What another process has to make first ends it.
    """
    seed, confirm = setting.seeds.search, setting.seeds.confirm

    def mixes(of: list[list[float]], start: int) -> dict[str, Spec]:
        return {f"mix_{start + i:02d}": custom(names, mix) for i, mix in enumerate(of)}

    first = mixes(search.coarse, 0)
    specs = first | {label: FIRST[label] for label in search.besides}
    yield from (Planned(label, seed, spec) for label, spec in specs.items())
    found = by_label(log, name, seed)
    if not first.keys() <= found.keys():
        return
    closer = mixes(search.fine([found[label] for label in first]), len(first))
    yield from (Planned(label, seed, spec) for label, spec in closer.items())
    specs |= closer
    found = by_label(log, name, seed)
    if not specs.keys() <= found.keys():
        return
    best = sorted(specs, key=lambda label: search.key([found[label]]))[: oracle.BEST]
    yield from (Planned(label, of, specs[label]) for label in best for of in confirm)
    each = [found, *(by_label(log, name, of) for of in confirm)]
    if not all(label in runs for label in best for runs in each):
        return
    chosen = min(best, key=lambda label: search.key([runs[label] for runs in each]))
    mix = found[chosen]["mix"]
    yield from (Planned("oracle", of, custom(names, mix)) for of in setting.seeds.report)


def known_oracle(name: str, results: Path = RESULTS) -> dict[str, float] | None:
    """A setting's oracle as settings_runs.csv has it, a share by domain."""
    with (results / "settings_runs.csv").open(encoding="utf-8", newline="") as file:
        rows = [
            r for r in csv.DictReader(file) if (r["setting"], r["strategy"]) == (name, "oracle")
        ]
    return {row["domain"]: float(row["share"]) for row in rows} or None


def by_label(log: Log, name: str, seed: int) -> dict[str, Row]:
    """A seed's runs, each with its first shares (``mix``)."""
    return {
        row["strategy"]: row | {"mix": row["shares"][0]}
        for row in log.of(name)
        if row["seed"] == seed
    }


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
    sweep["constrained_budget"] = constrained

    def of(specs: dict[str, Spec], seeds: list[int]) -> Iterator[Planned]:
        return (Planned(label, seed, spec) for seed in seeds for label, spec in specs.items())

    def further() -> Iterator[Planned]:
        yield from of(main, rest)
        yield from of(sweep, setting.seeds.report)

    at = [names.index(name) for name in targets]
    search = Search(
        coarse=oracle.coarse_of_targets(len(names), at),
        fine=lambda found: oracle.fine_of_targets(
            [entry["mix"] for entry in found], gains(found), at, -setting.tolerance
        ),
        key=lambda runs: oracle.kept_first(gains(runs), at, -setting.tolerance),
    )
    searched = searching(search, setting, names, log, name)
    return [of(main, [first]), further(), searched]


def gains(runs: list[Row]) -> npt.NDArray[np.float64]:
    """Each domain's fall since the base as a part of its loss there, shape (runs, k)."""
    base, loss = (np.array([run[key] for run in runs]) for key in ("base", "loss"))
    found: npt.NDArray[np.float64] = (base - loss) / base
    return found
