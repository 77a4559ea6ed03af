"""Parameters of the runs before a training: references, and runs on mixes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from versatune.mixing.config import ObjectiveParams, UniformParams
from versatune.params import Params, warn_renamed
from versatune.training.config import LauncherParams, TrainParams, check_changes

MIX_MEASURED = 3
"""How often a run on a mix measures all domains."""

LEAST_STEPS = 9
"""Steps of a run on a mix, at least."""


class MixShape(NamedTuple):
    """The runs on mixes: how many, how long, and how they measure."""

    number: int
    steps: int
    """Of each; a multiple of ``measured``."""
    measured: int
    """How often each measures all domains, besides the base model."""
    rows: int | None
    """Held-out rows a domain; None: all."""
    tokens: int | None
    """And more rows where these have fewer supervised tokens."""


class ReferenceParams(Params):
    """How reference losses are measured: a model of each single domain, stopped early."""

    mode: Literal["measure", "mixes", "none"] = "measure"
    """`measure` trains a model on each domain; `mixes` makes only the short runs on mixes, which
    the forecast and `mixing_law` need, and gives no references; `none` makes no runs."""
    mixes: int = Field(2, ge=0)
    """Short runs on mixes of all domains, each with half of the domains up and half down. They
    measure the effect of shares, and give the forecast and the first shares of `mixing_law` and of
    `expand` with `rule: constrained`. With 0, `measure` forecasts from the runs on single domains,
    which forget the others more than any mix does."""
    mix_part: float = Field(0.1, gt=0, le=1)
    """Steps of all these runs together, as a part of the training's."""
    budget: float | None = Field(None, gt=0, le=1)
    """What these runs and the training's own held-out measurements may cost together, as a part of
    the training (a measured token counts a third of a trained one). The runs measure fewer rows,
    less often, or get shorter until they fit; they always get half of it. null: no limit."""
    proxy: Path | None = None
    """The folder of a smaller model to use instead of the base model. With another tokenizer its
    losses are compared in bits per byte."""
    eval_steps: int = Field(10, ge=1)
    """Optimiser steps between held-out measurements."""
    max_steps: int = Field(200, ge=1)
    """Optimiser steps at most, rounded down to a multiple of `eval_steps`."""
    patience: int = Field(3, ge=1)
    """The run ends after this many measurements without a new minimum."""
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    """Part of the steps over which the learning rate rises."""
    transfer: float = Field(0.1, ge=0, le=1)
    """Part of a run's cost that measuring it on all other domains may take (forward passes on
    their held-out rows, up to once at every doubling of its steps): they show what a share of one
    domain does to the others. 0 measures none, as do runs on mixes, which show it better."""
    train: dict[str, Any] = Field(default={})
    """Parameters of training that differ from `train` (`learning_rate: 1.0e-4`); in a block (`lora:
    {r: 8}`) only the given keys. `lr_scheduler_type` is over `max_steps`: a reference without
    annealing has a higher loss than a training with it."""

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, given: Any) -> Any:
        """Accept the keys of the previous version, where they stood beside ``mode``."""
        if not isinstance(given, Mapping):
            return given
        moved = {
            key: "heldout_rows_per_domain" if key == "heldout_rows" else key
            for key in given
            if key == "heldout_rows"
            or (key in TrainParams.model_fields and key not in cls.model_fields)
        }
        for old, new in moved.items():
            warn_renamed(f"references.{old}", f"references.train.{new}")
        rest = {key: value for key, value in given.items() if key not in moved}
        if moved:
            changed = {new: given[old] for old, new in moved.items()}
            rest["train"] = {**rest.get("train", {}), **changed}
        return rest

    @field_validator("train")
    @classmethod
    def _known(cls, train: dict[str, Any]) -> dict[str, Any]:
        check_changes(train, _OF_A_REFERENCE, "the references")
        return train

    def of_run(self, train: TrainParams, longest: int = 1) -> TrainParams:
        """How each run trains: as ``train`` does, but on one domain and over ``max_steps``.

        ``longest``: tokens of the longest example, for which a row must have room.
        """
        like = train.changed(self.train)
        steps = min(self.eval_steps, self.max_steps)
        own = {
            **_OF_A_REFERENCE,
            "rounds": self.max_steps // steps,
            "steps_per_round": steps,
            "warmup_ratio": self.warmup_ratio,
            "max_length": max(like.max_length, longest),
        }
        return like.model_copy(update=own)

    def of_mix(
        self, train: TrainParams, longest: int = 1, runs: MixShape | None = None
    ) -> TrainParams:
        """How each run on a mix trains: on all domains, its learning rate falling to 0.

        ``runs``: as a budget allows them, else :meth:`mix_shape`.
        """
        runs = runs or self.mix_shape(train)
        own = {
            "rounds": runs.measured,
            "steps_per_round": runs.steps // max(runs.measured, 1),
            "heldout_rows_per_domain": runs.rows,
            "heldout_tokens_per_domain": runs.tokens,
            "lr_scheduler_type": "linear",
            "unit": train.unit,
        }
        return self.of_run(train, longest).model_copy(update=own)

    def mix_steps(self, train: TrainParams) -> int:
        """Optimiser steps of each run on a mix: a multiple of :data:`MIX_MEASURED`."""
        each = int(self.mix_part * train.steps.total / max(self.mixes, 1))
        return max(each // MIX_MEASURED * MIX_MEASURED, LEAST_STEPS)

    def mix_shape(self, train: TrainParams) -> MixShape:
        """The runs on mixes without a budget."""
        like = train.changed(self.train)
        rows, tokens = like.heldout_rows_per_domain, like.heldout_tokens_per_domain
        return MixShape(self.mixes, self.mix_steps(train), MIX_MEASURED, rows, tokens)

    def as_used(self, train: TrainParams) -> dict[str, Any]:
        """Every parameter that a reference run has, in one block, for people to read."""
        own = self.model_dump(mode="json", exclude={"train"})
        return self.of_run(train).model_dump(mode="json") | own


_OF_A_REFERENCE: dict[str, Any] = {
    "resume": "restart",
    "rounds": None,
    "steps_per_round": None,
    "round_growth": 1.0,
    "strategy": UniformParams(),
    "unit": "tokens",
    "epoch_cap": None,
    "objective": ObjectiveParams(),
    "warmup_ratio": None,
    "launcher": LauncherParams(),
    "interpolate": None,
}
"""The keys that a reference run does not take from training. None: see
:meth:`ReferenceParams.of_run`."""
