"""One training in a world, and the log of all that were made.

The log has a line of JSON a run. A run that is logged is not made again, so a killed call goes on.
"""

import json
import math
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.settings.declared import Given
from tests.benchmarks.settings.world import World
from versatune.data.store import Split
from versatune.modeling.checkpoints import CheckpointRef
from versatune.training import TrainParams, train

Row = dict[str, Any]
Key = tuple[str, str, int, str]

STEERED = ("mixing_law", "expand")
"""Strategies whose code the version in a row stands for."""

STATIC = ("uniform", "proportional", "custom")
"""Strategies whose shares stay: with a given model, which is slow to measure, they train in one
round, so that they are measured at its ends alone."""


class Log:
    """What was run, in a file."""

    def __init__(self, path: Path) -> None:
        self._path, self._size = path, -1
        self._read: dict[Key, Row] = {}

    @property
    def _rows(self) -> dict[Key, Row]:
        """Read anew where another process has added to the file."""
        size = self._path.stat().st_size if self._path.is_file() else 0
        if size != self._size:
            self._read = {_key(row): row for row in read_rows(self._path)}
            self._size = size
        return self._read

    def has(self, setting: str, strategy: str, seed: int, version: str) -> bool:
        """Whether this run is there."""
        return (setting, strategy, seed, version) in self._rows

    def of(self, setting: str, version: str | None = None) -> Iterator[Row]:
        """A setting's rows."""
        for row in list(self._rows.values()):
            if row["setting"] == setting and version in (None, row["version"]):
                yield row

    def add(self, row: Row) -> None:
        """Write a row at once."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        text = self._path.read_text(encoding="utf-8") if self._path.is_file() else ""
        with self._path.open("a", encoding="utf-8") as file:
            if text and not text.endswith("\n"):  # a kill cut the last line short
                file.write("\n")
            file.write(json.dumps(row) + "\n")


def read_rows(path: Path) -> list[Row]:
    """The lines of a log; a last line that a kill cut short is left out."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def _key(row: Mapping[str, Any]) -> Key:
    return row["setting"], row["strategy"], row["seed"], row["version"]


def version() -> str:
    """The commit that last changed the code of the strategies."""
    done = subprocess.run(
        ["git", "log", "-1", "--format=%h", "--", "src/versatune/mixing"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def run_once(
    world: World,
    setting: str,
    label: str,
    strategy: Mapping[str, Any],
    seed: int,
    *,
    of_version: str = "",
    tolerance: float = 0.0,
    rounds: int | None = None,
) -> Row:
    """Train and measure; the row of the log.

    ``of_version``: of the strategies' code, where the row depends on it; ``tolerance`` of the
    objective; ``rounds``: others than the setting's.
    """
    started = time.process_time()
    changes: dict[str, Any] = {
        "seed": seed,
        "strategy": dict(strategy),
        "resume": "restart",
        "save_every_rounds": 1000,
        "objective": {"kind": "mean", "tolerance": tolerance},
    }
    given = changes | ({"rounds": rounds} if rounds else {})
    params = TrainParams.model_validate(world.run.train.model_dump() | given)
    whole = params
    if isinstance(world.setting.base, Given) and strategy["name"] in STATIC:
        params = params.model_copy(
            update={"rounds": 1, "steps_per_round": params.rounds * params.steps_per_round}
        )
    uses_law, needs = params.strategy.uses_law, params.strategy.needs_reference
    references = world.with_references if needs else world
    folder = Path(tempfile.mkdtemp(prefix="run_", dir=world.run.data))
    result = train(
        world.store,
        world.base,
        params,
        reference_losses=references.known_references if needs else None,
        traces=world.traces if uses_law else None,
        initial_weights=world.initial,
        detected_shares=world.detected,
        folder=folder / "run",
    )
    searched = seed not in world.setting.seeds.report
    split: Split = "steering" if searched else "report"
    history, names = result.history, world.domains
    last = history[history["round"] == history["round"].max()].set_index("domain")
    if searched and isinstance(world.setting.base, Given):  # as measured in the end
        ends = last["validation_loss"].to_dict()
    else:
        model = CheckpointRef.of_folder(result.model_ref.path)
        ends = world.measured(model, split)
    by_round = [
        history[history["round"] == r].set_index("domain")["weight"][names].round(4).tolist()
        for r in range(1, int(history["round"].max()) + 1)
    ]
    row = {
        "setting": setting,
        "strategy": label,
        "seed": seed,
        "version": of_version,
        "domains": names,
        "split": split,
        "loss": [ends[n] for n in names],
        "base": [world.before(split)[n] for n in names],
        "measured": last["validation_loss"][names].tolist(),
        "shares": by_round * (whole.rounds // params.rounds),
        "steps": int(last["step"].iloc[0]),
        "model_round": result.model_ref.metadata.get("model_round"),
        "cost_steps": params.rounds * params.steps_per_round
        + (mix_cost(world) if uses_law else reference_steps(references) if needs else 0),
        "spec": dict(strategy),
        "tolerance": tolerance,
    }
    shutil.rmtree(folder)
    return row | {"seconds": round(time.process_time() - started, 2)}


def longer_rounds(world: World) -> int:
    """Rounds of the setting's training and of what the runs on mixes cost, rounded up."""
    train = world.run.train
    return math.ceil(train.rounds + mix_cost(world) / train.steps_per_round)


def mix_cost(world: World) -> float:
    """What the runs on mixes cost, in optimiser steps of the setting's training."""
    train, refs = world.run.train, world.run.references
    if refs.budget is not None:
        return round(float(world.references["mix_cost"]["mixes"]) * train.steps.total, 1)
    params = refs.of_run(train)
    part = params.per_device_train_batch_size / train.per_device_train_batch_size
    trained = part * refs.mix_steps(train) * refs.mixes
    measured = sum(
        sum(_heldout_tokens(world)[name] for name in point["losses"])
        for mix in world.references["mixes"]
        for point in mix["curve"]
    )
    return round(trained + measured / 3 / _tokens_a_step(world), 1)


def reference_steps(world: World) -> float:
    """What the references cost, in optimiser steps of the setting's training.

    A step on a smaller batch is that part of one; measuring a token costs a third of training it.
    """
    train, refs = world.run.train, world.run.references.of_run(world.run.train)
    entries = world.references["domains"].values()
    part = refs.per_device_train_batch_size / train.per_device_train_batch_size
    trained = part * sum(entry["steps_run"] for entry in entries)
    each = _heldout_tokens(world)
    measured = sum(
        sum(each[n] for n in point["losses"]) for entry in entries for point in entry["curve"]
    )
    return round(trained + measured / 3 / _tokens_a_step(world), 1)


def _heldout_tokens(world: World) -> dict[str, float]:
    """Tokens of the rows that a reference run measures of each domain."""
    rows = world.run.references.of_run(world.run.train).heldout_rows_per_domain
    return {
        name: entry["tokens"] * min(1.0, (rows or entry["rows"]) / entry["rows"])
        for name, entry in world.store.metadata["steering"].items()
    }


def _tokens_a_step(world: World) -> int:
    return world.run.train.per_device_train_batch_size * world.run.train.max_length
