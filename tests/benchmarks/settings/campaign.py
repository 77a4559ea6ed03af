"""All settings in turns, so that each has a first seed before any has its last."""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from tests.benchmarks.settings.declared import Declared, Given, Run, all_settings
from tests.benchmarks.settings.runs import Log, longer_rounds, run_once, version
from tests.benchmarks.settings.schedule import (
    BUDGETED,
    LONGER,
    OF_LAW,
    Planned,
    expanding,
    fostering,
)
from tests.benchmarks.settings.world import World, make_world

PHASES = 3

Wanted = Callable[[Planned], bool]
"""Whether a run is to be made."""


class Part:
    """A setting, or one target of it."""

    def __init__(self, declared: Declared, target: str | None, out: Path, log: Log) -> None:
        self.declared, self.target, name = declared, target, declared.name
        self.name = f"{name}/{target}" if target else name
        self._out, self._log = out, log
        self._version = version()

    @cached_property
    def world(self) -> World:
        """Made when its first run is due."""
        return make_world(self.declared)

    def _note(self) -> None:
        """What the forecast is made of, for the tables; references are measured by the first run
        that needs them, so that another process can make runs that need none meanwhile."""
        world = self.world
        note = {
            "setting": self.name,
            "references": world.references,
            "traces": world.traces,
            "rows": {s: world.store.metadata[s] for s in ("train", "steering", "report")},
        }
        file = self._out / "worlds" / f"{self.name.replace('/', '_')}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(note), encoding="utf-8")

    def phase(self, number: int, wanted: Wanted) -> Iterator[str]:
        """Make the runs of a phase that are not there; says what was done."""
        setting, names = self.declared.setting, list(Run.of(self.declared).domains.active)
        if self.target is None:
            planned = fostering(setting, names, self._log, self.name)[number]
        else:
            planned = expanding(setting, names, self.target, self._log, self.name)[number]
        for run in planned:
            if wanted(run):
                yield from self._make(run)

    def _make(self, run: Planned) -> Iterator[str]:
        of_law = run.label in OF_LAW
        at = self._version if of_law else ""
        if self._log.has(self.name, run.label, run.seed, at):
            return
        if of_law and run.label not in BUDGETED:  # it has runs on mixes of its own
            self._note()
        tolerance = self.declared.setting.tolerance if of_law else 0.0
        world = self.world.budgeted if run.label in BUDGETED else self.world
        row = run_once(
            world, self.name, run.label, run.spec, run.seed,
            of_version=at, tolerance=tolerance,
            rounds=longer_rounds(self.world) if run.label == LONGER else None,
        )  # fmt: skip
        self._log.add(row)
        mean = sum(row["loss"]) / len(row["loss"])
        yield f"{self.name} {run.label} {run.seed} {mean:.4f} ({row['seconds']} s)"


class Campaign:
    """Every part, phase by phase. ``names``: settings, or ``SETTING/TARGET`` for one part."""

    phases = PHASES

    def __init__(
        self, out: Path, names: list[str] | None, given: Mapping[str, str] | None = None
    ) -> None:
        log = Log(out / "runs.jsonl")
        self._parts = []
        for asked in names or all_settings():
            name, _, of = asked.partition("/")
            declared = Declared(name, given)
            setting = declared.setting
            if of and of not in setting.targets:
                raise SystemExit(
                    f"{name} has no target {of}: {', '.join(setting.targets) or 'none'}"
                )
            if isinstance(setting.base, Given) and not given:
                continue
            if setting.kind == "no_data" and names:
                raise SystemExit(
                    f"{name} is of kind no_data; its runs are made by "
                    f"`python -m tests.benchmarks.rehearsal OUT_DIR --setting {name}`"
                )
            if setting.kind == "foster":
                self._parts.append(Part(declared, None, out, log))
            elif setting.kind == "expand":
                targets = [of] if of else setting.targets
                self._parts += [Part(declared, target, out, log) for target in targets]

    def phase(self, number: int, wanted: Wanted) -> Iterator[str]:
        """One phase of every part."""
        for part in self._parts:
            yield from part.phase(number, wanted)
