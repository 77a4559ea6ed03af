"""The live numbers of a training: loss, learning rate, gradient norm, speed, memory.

They are read every ``logging_steps``, when the Trainer waits for the device anyway.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from versatune.artifacts import write_atomic
from versatune.training.job import STEPS, OnStep
from versatune.training.machine import machine
from versatune.training.round_steps import RoundSteps
from versatune.training.throughput import Cost, Work
from versatune.work.bars import Line, time_left
from versatune.work.calls import prefix

GB = 10**9

BESIDE = 17
"""Columns of a terminal that the bar takes, before its text."""

NARROW = 80 - BESIDE

OF_STEPS = ("learning_rate", "grad_norm", "mfu", "peak_memory_bytes")
"""Columns of the history about a round's steps: the rate after the last one, the mean norm of
those that were logged, the part of the devices' peak, and the peak memory until then."""


@dataclass(frozen=True)
class RoundTiming:
    """Where the seconds of a round went, and what they were spent on."""

    seconds: float
    measurement_seconds: float
    tokens: int

    @property
    def tokens_per_second(self) -> float:
        """Over all seconds, measuring included; none before the first step."""
        return self.tokens / max(self.seconds, 1e-9)


@dataclass
class Meter:
    """Seconds of training only, measuring and saving left out, and what was trained in them."""

    work: Work = field(default_factory=Work)
    seconds: float = 0.0

    def add(self, work: Work, seconds: float) -> None:
        self.work, self.seconds = self.work + work, self.seconds + seconds

    def tokens_per_second(self) -> float | None:
        """None before any step."""
        return self.work.tokens / self.seconds if self.work.tokens and self.seconds > 0 else None

    def mfu(self, cost: Cost | None, peak: float | None) -> float | None:
        """Part of ``peak`` FLOP/s, that of all devices together; None where one is not known."""
        if cost is None or not peak or not self.work.tokens or self.seconds <= 0:
            return None
        return cost.flops(self.work) / self.seconds / peak


class Progress:
    """The bar, ``steps.jsonl`` and the listener; what a round's history says of its steps.

    ``work(first, last)`` says what the round's steps ``first`` to ``last - 1`` train on,
    ``saving()`` the seconds that checkpoints have taken so far.
    """

    def __init__(
        self,
        folder: Path,
        steps: RoundSteps,
        *,
        work: Callable[[int, int], Work],
        saving: Callable[[], float],
        cost: Cost | None,
        peak: float | None,
        shown: bool,
        on_step: OnStep | None = None,
    ) -> None:
        """``shown``: whether this process shows and writes."""
        self._file, self._shown = folder / STEPS, shown
        self._steps = steps
        self._work, self._saving, self._on_step = work, saving, on_step
        self._cost, self._peak = cost, peak
        self._window, self._round = Meter(), Meter()
        self._norms: list[float] = []
        self._at, self._began, self._saved = 0, time.monotonic(), 0.0
        self._bar: Line | None = None
        self._first, self._started = 0, self._began

    def state(self) -> dict[str, Any]:
        """What a checkpoint within a round holds."""
        return {"norms": self._norms}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self._norms = list(state.get("norms", []))

    def begin(self, step: int, within: int) -> None:
        """Training goes on at ``step``, ``within`` the round; the device has nothing to do."""
        if self._bar is None and self._shown:
            keep_until(self._file, step)
            self._bar = Line(self._steps.total, step)
            self._first, self._started = step, time.monotonic()
        self._at, self._began, self._saved = within, time.monotonic(), self._saving()

    def pause(self, within: int) -> None:
        """The device has finished the steps of the round before ``within``."""
        now, saved = time.monotonic(), self._saving()
        seconds = now - self._began - (saved - self._saved)
        if within > self._at:
            done = self._work(self._at, within)
            self._window.add(done, seconds)
            self._round.add(done, seconds)
        self._at, self._began, self._saved = within, now, saved

    def step(self, step: int, within: int, logs: Mapping[str, float]) -> None:
        """Trainer's ``logs`` of the last ``logging_steps``: show them, write them, pass them on."""
        self.pause(within)
        metrics: dict[str, float] = {
            key: float(logs[key]) for key in ("loss", "learning_rate", "grad_norm") if key in logs
        }
        if "grad_norm" in metrics:
            self._norms.append(metrics["grad_norm"])
        if (speed := self._window.tokens_per_second()) is not None:
            metrics["tokens_per_second"] = speed
        if (mfu := self._window.mfu(self._cost, self._peak)) is not None:
            metrics["mfu"] = mfu
        metrics["peak_memory_gb"] = machine()["peak_memory_bytes"] / GB
        self._window = Meter()
        if not self._shown:
            return
        if self._bar is not None:
            each = (time.monotonic() - self._started) / max(step - self._first, 1)
            left = each * (self._steps.total - step)
            width = shutil.get_terminal_size().columns - BESIDE - len(prefix())
            text = bar_text(step, self._steps, metrics, left, width)
            self._bar.show(step, f"{prefix()}{text}")
        event = {"step": step, "metrics": metrics}
        with self._file.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(event) + "\n")
        if self._on_step is not None:
            self._on_step(event)

    def end_round(self) -> dict[str, float | None]:
        """What the history says of the round's steps; begins the next round's."""
        norms, meter = self._norms, self._round
        self._norms, self._round = [], Meter()
        return {
            "grad_norm": sum(norms) / len(norms) if norms else None,
            "mfu": meter.mfu(self._cost, self._peak),
            "peak_memory_bytes": machine()["peak_memory_bytes"],
        }

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()


def bar_text(
    step: int,
    steps: RoundSteps,
    metrics: Mapping[str, float],
    left: float,
    width: int = NARROW,
) -> str:
    """``round 3/8 · step 24/50 · loss 1.21 · 780 tok/s · 4 min left``, of what is known.

    ``step`` counts from the training's start, ``left`` is in seconds. MFU, peak memory, gradient
    norm and learning rate stand there too as far as ``width`` columns hold them, in that order; a
    terminal of 80 columns has only the short line.
    """
    number, within = steps.place(max(step, 1) - 1)
    said = {
        "round": f"round {number + 1}/{len(steps.of)}",
        "step": f"step {min(within + 1, step)}/{steps.of[number]}",
        "loss": _known(metrics, "loss", "loss {:.2f}"),
        "lr": _known(metrics, "learning_rate", "lr {:.1e}"),
        "norm": _known(metrics, "grad_norm", "norm {:.2f}"),
        "speed": f"{speed(rate)} tok/s" if (rate := metrics.get("tokens_per_second")) else "",
        "mfu": _known(metrics, "mfu", "MFU {:.2f}"),
        "memory": _known(metrics, "peak_memory_gb", "{:.1f} GB"),
        "left": time_left(left),
    }
    shown = {"round", "step", "loss", "speed", "left"}

    def text(names: set[str]) -> str:
        return " · ".join(part for name, part in said.items() if name in names and part)

    for name in ("mfu", "memory", "norm", "lr") if width > NARROW else ():
        if len(text(shown | {name})) <= width:
            shown.add(name)
    return text(shown)


def _known(metrics: Mapping[str, float], name: str, form: str) -> str:
    return form.format(metrics[name]) if name in metrics else ""


def speed(tokens_per_second: float) -> str:
    """Tokens a second; small numbers with two digits, so that they are never 0."""
    return f"{tokens_per_second:,.0f}" if tokens_per_second >= 10 else f"{tokens_per_second:.2g}"


def keep_until(path: Path, step: int) -> None:
    """Drop the lines of steps after ``step``, which a resumed training takes again."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    # A kill may have cut the last line short.
    whole = [line for line in lines if line.endswith("}}")]
    kept = [line for line in whole if json.loads(line)["step"] <= step]
    write_atomic(path, "".join(f"{line}\n" for line in kept))
