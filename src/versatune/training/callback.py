"""The end of a round, and the checks within it."""

# ruff: noqa: ARG002 - the names of the arguments are the superclass's.

import json
import logging
import math
import time
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from versatune.data.store import TokenizedSplit
from versatune.errors import VersatuneError
from versatune.mixing.config import ExpandParams
from versatune.mixing.strategies import Decision
from versatune.modeling.heldout import HeldOut, heldout_losses
from versatune.training.config import TrainParams
from versatune.training.events import as_event, rates
from versatune.training.job import EVENTS, OnRound, OnStep
from versatune.training.progress import Progress
from versatune.training.rounds import Mixture
from versatune.training.throughput import Cost, peak_flops
from versatune.training.trainer import MixtureTrainer, not_finite
from versatune.work.bars import Paced, time_left
from versatune.work.calls import prefix, within_call

logger = logging.getLogger(__name__)

EVERY = 300.0
"""Seconds between the lines of a training beside others, whose bar shows how far they are."""

WORTH_A_LINE = 10.0
"""Seconds from which on a training beside others says how it ended, if its model is not kept."""

GROWN = 1.1
"""Times the memory that the log gave last, from which on it gives the new number."""


class RoundCallback(TrainerCallback):
    """Measures, updates the mixture, writes the history, asks for checkpoints; stops a failing
    training."""

    def __init__(
        self,
        trainer: MixtureTrainer,
        mixture: Mixture,
        steering: TokenizedSplit,
        *,
        key: str,
        saves: bool,
        patience: int | None,
        on_round: OnRound | None,
        others: TokenizedSplit | None = None,
        others_at: tuple[int, ...] = (),
        cost: Cost | None = None,
        on_step: OnStep | None = None,
    ) -> None:
        """``others``: held-out rows of all domains, measured after the rounds ``others_at``.

        ``key`` is where the parameters are written. ``cost``: FLOPs of the model, for the MFU.

        ``patience``: rounds without a new best after which training ends.
        """
        self._trainer, self._mixture, self._steering = trainer, mixture, steering
        self._key, self._saves, self._patience = key, saves, patience
        self._on_round = on_round
        self._others, self._others_at = others, others_at
        self._folder = trainer.folder
        self._params: TrainParams = mixture.params
        self._steps = mixture.params.steps
        self._in_round = False
        self._began = time.monotonic()
        self._round_began = self._began
        self._rounds_before = mixture.round
        # Time a killed run had already spent on the round at hand.
        self._seconds_before = 0.0
        self.keeps_best = _may_roll_back(self._params)
        peak = peak_flops()
        # Trainings that run side by side log less.
        self._quiet, self._paced = within_call(), Paced(EVERY)
        # The shares, and the peak of memory in bytes, that the log gave last.
        self._told, self._peak_told = "", 0.0
        self.progress = Progress(
            self._folder.parent,
            self._steps,
            work=mixture.work,
            saving=lambda: trainer.saving_seconds,
            cost=cost,
            peak=peak and peak * trainer.args.world_size,
            shown=trainer.is_world_process_zero(),
            on_step=on_step,
        )

    def within_round(self) -> dict[str, Any]:
        """The state of the current round for a checkpoint; every process must call it."""
        return {
            "sums": self._trainer.summed().tolist(),
            "seconds": self._seconds_before + time.monotonic() - self._round_began,
            "best_step": self._trainer.best_step,
            "step": self._trainer.state.global_step,
            "progress": self.progress.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`within_round`; the sums are the first process's from here on."""
        if self._trainer.is_world_process_zero():
            self._trainer.sums.copy_(torch.tensor(state["sums"], dtype=torch.float64))
        self._trainer.best_step = state["best_step"]
        within = self._steps.place(state["step"])[1] > 0
        self._seconds_before = state["seconds"] if within else 0.0
        if within:
            self.progress.load(state.get("progress", {}))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure the base model, unless a checkpoint brought its losses."""
        if not self._mixture.base_losses:
            losses, seconds = self._measure()
            self._mixture.begin(losses, seconds)
            self._measure_others()
            self._report("the base model")
        self._rounds_before, self._began = self._mixture.round, time.monotonic()

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """A round begins, or continues after a resume; Trainer handles the epochs within it."""
        if self._in_round:
            return
        self._in_round = True
        self._round_began = time.monotonic()
        self.progress.begin(state.global_step, self._within(state.global_step))

    def _within(self, step: int) -> int:
        """Steps of the round at hand that are done after ``step``."""
        return step - self._steps.start(self._mixture.round)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """At the end of a round: measure, decide, record, save."""
        if state.global_step < self._steps.ends[self._mixture.round]:
            return
        self._in_round = False
        sums = self._trainer.summed().numpy()
        self.progress.pause(self._within(state.global_step))
        self._check_finite(sums[:, 0].tolist(), "training loss")
        with np.errstate(invalid="ignore"):
            train_loss = np.where(sums[:, 1] > 0, sums[:, 0] / sums[:, 1], math.nan)
        losses, measuring = self._measure()
        seconds = self._seconds_before + time.monotonic() - self._round_began
        steps = {
            **self.progress.end_round(),
            "learning_rate": self._trainer._get_learning_rate(),
        }
        decision = self._mixture.finish(
            state.global_step, losses, train_loss, seconds, measuring, steps
        )
        self._measure_others()
        self._trainer.sums.zero_()
        self._seconds_before = 0.0
        self._end_early(decision, control)
        if decision.best and self.keeps_best:
            self._trainer.best_step = state.global_step
        last = control.should_training_stop or self._mixture.round == self._params.rounds
        due = last or self._mixture.round % self._params.save_every_rounds == 0
        control.should_save = self._saves and (due or (decision.best and self.keeps_best))
        self._report(decision.reason)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Ask for checkpoints within a round; its last step is saved after the update."""
        every, step = self._params.save_steps, state.global_step
        within = self._steps.place(step)[1] > 0
        if self._saves and every and within and step % every == 0:
            control.should_save = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Report the last logging_steps; stop on a loss (their mean) that is not finite or
        explodes."""
        loss = (logs or {}).get("loss")
        if loss is None or logs is None:
            return
        self.progress.step(state.global_step, self._within(state.global_step), logs)
        self._check_finite([loss], "training loss")
        guard, limit = self._params.loss_guard, max(self._mixture.base_losses, default=math.inf)
        if guard is not None and loss > guard * limit:
            raise VersatuneError(
                not_finite(
                    self._folder,
                    f"the training loss is {loss:.3g}, more than {guard:g} times the base model's "
                    f"largest held-out loss {limit:.3g} ({self._key}.loss_guard)",
                    self._key,
                )
            )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Close the bar; a quiet training logs a summary."""
        self.progress.close()
        seconds = time.monotonic() - self._began
        due = self._saves or seconds >= WORTH_A_LINE
        if self._quiet and due and self._trainer.is_world_process_zero():
            first, last = self._mean_loss(0), self._mean_loss(self._mixture.round)
            logger.info(
                "%sheld-out loss %.3f to %.3f in %d steps, %.1f s",
                *(prefix(), first, last, state.global_step, seconds),
            )

    def _mean_loss(self, number: int) -> float:
        found: list[float] = [
            r["validation_loss"] for r in self._mixture.history if r["round"] == number
        ]
        return sum(found) / len(found)

    def _measure_others(self) -> None:
        if self._others is not None and self._mixture.round in self._others_at:
            measured = self._heldout(self._others)
            others = {n: h for n, h in measured.items() if n not in self._mixture.domains}
            self._mixture.rows_measured.note_others(self._mixture.round, others)

    def _heldout(self, split: TokenizedSplit) -> dict[str, HeldOut]:
        args = self._trainer.args
        # Compiled blocks run as they are meanwhile: the shapes are others.
        compiled = self._params.torch_compile
        with torch.compiler.set_stance("force_eager") if compiled else nullcontext():
            return heldout_losses(
                self._trainer.model_wrapped,
                split,
                rows_per_domain=self._params.heldout_rows_per_domain,
                tokens_per_domain=self._params.heldout_tokens_per_domain,
                batch_tokens=self._params.heldout_batch_tokens,
                loss=self._trainer.model_wrapped,
                rank=args.process_index,
                world=args.world_size,
            )

    def _measure(self) -> tuple[dict[str, HeldOut], float]:
        started = time.monotonic()
        losses = self._heldout(self._steering)
        self._check_finite([h.nats_per_token for h in losses.values()], "held-out loss")
        for name, measured in losses.items():
            if measured.nats_per_token <= 0:
                raise VersatuneError(
                    f"the held-out loss of {name} is 0, since the model is certain of every token "
                    f"of its steering rows, and no share can follow that: give {name} other "
                    "rows, or leave it out of the domains."
                )
        return losses, time.monotonic() - started

    def _check_finite(self, losses: list[float], what: str) -> None:
        if not all(map(math.isfinite, losses)):
            raise VersatuneError(
                not_finite(self._folder, f"the {what} is NaN or infinite", self._key)
            )

    def _end_early(self, decision: Decision, control: TrainerControl) -> None:
        mixture = self._mixture
        waited = mixture.round - (mixture.best_round or 0)
        if decision.stop is not None:
            logger.warning("Training ends: %s.", decision.reason)
            control.should_training_stop = True
        elif self._patience is not None and waited >= self._patience:
            mixture.ended = f"no new minimum for {waited} rounds"
            control.should_training_stop = True

    def _report(self, reason: str) -> None:
        """Log one line, append to metrics.jsonl, tell the listener; only the first process."""
        if not self._trainer.is_world_process_zero():
            return
        mixture = self._mixture
        rows = [row for row in mixture.history if row["round"] == mixture.round]
        if not self._quiet or self._paced.due():
            self._say(rows, reason)
        event = as_event(rows)
        with (self._folder.parent / EVENTS).open("a") as handle:
            handle.write(json.dumps(event) + "\n")
        if self._on_round is not None:
            self._on_round(event)

    def _say(self, rows: list[dict[str, Any]], reason: str) -> None:
        mixture, told = self._mixture, self._told
        self._told = " ".join(f"{row['domain']} {row['weight']:.2f}" for row in rows)
        alone = len(rows) == 1  # on one domain there are no shares to tell
        shares = "" if alone or self._told == told else f"shares {self._told}"
        done = mixture.round - self._rounds_before
        each = (time.monotonic() - self._began) / max(done, 1)
        left = time_left(each * (self._params.rounds - mixture.round)) if done else ""
        if mixture.round:
            what, why = f"round {mixture.round}/{self._params.rounds}", "" if alone else reason
        else:
            what, why = reason, ""
        loss = f"held-out loss {self._mean_loss(mixture.round):.4f}"
        said = filter(None, (loss, shares, self._rates(rows[0]), left, why))
        logger.info("%s%s: %s", prefix(), what, "; ".join(said))

    def _rates(self, row: dict[str, Any]) -> str:
        """Speed, and memory where it is the first number of it or a larger one."""
        peak = row.get("peak_memory_bytes") or 0
        grown = peak > GROWN * self._peak_told
        self._peak_told = peak if grown else self._peak_told
        return rates(row if grown else {**row, "peak_memory_bytes": None})


def _may_roll_back(params: TrainParams) -> bool:
    strategy = params.strategy
    return (
        isinstance(strategy, ExpandParams)
        and strategy.rule == "paper"
        and strategy.guard.action == "rollback"
    )
