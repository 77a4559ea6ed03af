"""Parameters of the compare pipeline. Top-level key ``compare``."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from versatune.evaluation.config import BASE
from versatune.mixing.config import ProportionalParams, StrategyParams
from versatune.params import Params
from versatune.training.config import check_changes

STRATIFIED = "proportional"
"""The static mix every comparison has: no earlier method reliably beats it."""

PER_RUN = ("strategy", "seed", "resume")
"""Parameters of training that a comparison sets itself for each run."""


class CompareParams(Params):
    """Strategies x seeds from one base model, with one budget, schedule and evaluation."""

    strategies: dict[str, StrategyParams] = Field(min_length=1)
    """Name -> strategy with its parameters. ``name`` inside is the strategy's kind and may be
    left out where the key says it already (``foster: {sigma: 0.5}``), so that two variants of
    one kind can compete. ``null`` takes one out in an overlay. A proportional mix is always
    added."""
    seeds: tuple[Annotated[int, Field(ge=0, lt=1 << 32)], ...] = Field(
        default=(0, 1, 2, 3, 4), min_length=1
    )
    """Every strategy is trained once with each; differences are paired by seed."""
    baseline: str = "uniform"
    """The strategy the others are measured against."""
    bases: dict[str, Path] = Field(default={})
    """Other base models: a name -> the data folder of a project that compared the same strategies
    on the same domains from it. The verdicts are then over seeds, rows and base models."""
    target: str | None = None
    """The domain to expand: adds target gain and the change of the others to the summary."""
    train: dict[str, Any] = Field(default={})
    """Parameters of training that differ from ``train`` (``rounds: 4``), for all runs; of a block
    (``lora: {r: 8}``) only the keys that are given."""
    keep_models: bool = False
    """Keep the weights of finished runs. Off, a run's numbers, items and history are kept."""

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, data: Any) -> Any:
        given = data.get("strategies") if isinstance(data, Mapping) else None
        if not isinstance(given, Mapping):
            return data
        named = {
            label: {"name": label, **value} if isinstance(value, Mapping) else value
            for label, value in given.items()
            if value is not None
        }
        return {**data, "strategies": named}

    @field_validator("strategies")
    @classmethod
    def _has_stratified(cls, given: dict[str, StrategyParams]) -> dict[str, StrategyParams]:
        for label in given:
            if not re.fullmatch(r"[A-Za-z0-9_-]+", label):
                raise ValueError(f"{label!r} names a folder: use letters, digits, _ and -")
        if BASE in given:
            raise ValueError(f"{BASE!r} is what tables call the base model: choose another name")
        plain = ProportionalParams()
        if STRATIFIED in given and plain not in given.values():
            raise ValueError(
                f"{STRATIFIED!r} is the mix that is always added: give yours another name, as in "
                f"mine: {{name: {given[STRATIFIED].name}, ...}}"
            )
        return given if plain in given.values() else {**given, STRATIFIED: plain}

    @field_validator("seeds")
    @classmethod
    def _differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError(f"a seed is given twice: {', '.join(map(str, seeds))}")
        return seeds

    @field_validator("train")
    @classmethod
    def _known(cls, train: dict[str, Any]) -> dict[str, Any]:
        check_changes(train, PER_RUN, "the comparison")
        return train

    @model_validator(mode="after")
    def _baseline_runs(self) -> Self:
        if self.baseline not in self.strategies:
            raise ValueError(
                f"baseline {self.baseline!r} is not one of the strategies: "
                f"{', '.join(self.strategies)}"
            )
        return self
