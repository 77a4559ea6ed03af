"""What the runs on mixes and the training's own measurements cost, and runs that keep to a budget.

Costs are in tokens trained; a token that is only measured counts a third (one forward pass of what
a step takes as three). Where the budget is short, runs are measured on fewer rows first, then less
often, then they get shorter, and last there are fewer of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from versatune.artifacts import FolderRef
from versatune.data.store import TokenizedSplit
from versatune.modeling.heldout import chosen_rows
from versatune.training.config import TrainParams
from versatune.training.costs import FORWARD, rows_per_step
from versatune.training.reference_config import LEAST_STEPS, MixShape, ReferenceParams

LEAST_ROWS = 8
"""Held-out rows of a domain, at least, where they are made fewer."""

SHORTENED = ((3, 1), (3, 2), (2, 2), (3, 4), (2, 4), (1, 4), (2, 8), (1, 8))
"""Ways to measure a run, the best first: how often, and on one of how many rows."""


@dataclass(frozen=True)
class MixBudget:
    """The runs on mixes that a budget allows, and what they cost as parts of the training."""

    runs: MixShape
    asked: MixShape
    """The runs without a budget."""
    part: float
    """Of the runs, measuring included."""
    control: float
    """Of the training's own measurements after each round."""
    budget: float | None

    @property
    def shortened(self) -> bool:
        """Whether the runs are others than without a budget."""
        return self.runs != self.asked

    def notes(self) -> list[str]:
        """What was shortened, as a log line."""
        if not self.shortened or not self.runs.number:
            return []
        runs, asked = self.runs, self.asked
        return [
            f"To keep to references.budget ({self.budget:.0%} of the training): {runs.number} runs "
            f"on mixes of {runs.steps} steps (of {asked.number} of {asked.steps}), measured "
            f"{_times(runs.measured)} (of {asked.measured}) on {_rows(runs.rows)} of each domain; "
            f"they cost {self.part:.1%}, and measuring during the training {self.control:.1%}."
        ]

    def warnings(self) -> list[str]:
        """The warning about a budget that has no room for the runs, or that measuring alone
        exceeds."""
        if self.budget is None or not self.asked.number:
            return []
        said = []
        if not self.runs.number:
            said.append(
                f"references.budget ({self.budget:.0%} of the training) has no room for two runs "
                f"on mixes of {LEAST_STEPS} steps, and shorter ones are too noisy, so there are "
                "none: without runs on single domains (references.mode: measure) there is no "
                "forecast, and mixing_law learns only from its own rounds and stays near "
                "strategy.stay (strategy.reach). Train more steps, set references.budget: "
                "null, or choose uniform."
            )
        if self.part + self.control > self.budget + 1e-9:
            said.append(
                f"Measuring held-out rows after each round costs {self.control:.0%} of the "
                f"training, and the runs on mixes {self.part:.0%}: more than references.budget "
                f"({self.budget:.0%}). Lower train.rounds, train.heldout_rows_per_domain or "
                "train.heldout_tokens_per_domain, or train more steps."
            )
        return said


def mix_budget(store: FolderRef, params: ReferenceParams, train: TrainParams) -> MixBudget:
    """The runs on mixes within ``params.budget``; unchanged without a budget.

    They get what the training's own measurements leave of the budget, and at least half of it.
    """
    asked = params.mix_shape(train)
    cost = _Costs.of(store, params, train)
    measured = cost.measured((train.heldout_rows_per_domain, train.heldout_tokens_per_domain))
    control = measured * (train.rounds + 1) / cost.training
    if params.budget is None or not asked.number:
        return MixBudget(asked, asked, cost.part(asked), control, params.budget)
    left = max(params.budget - control, params.budget / 2)
    kept = next(_within(asked, left, cost), MixShape(0, 0, 0, None, None))
    return MixBudget(kept, asked, cost.part(kept), control, params.budget)


@dataclass(frozen=True)
class _Costs:
    steering: TokenizedSplit
    training: float
    """Tokens of the whole training, every row full."""
    a_step: float
    """Tokens of a step of a run on a mix."""

    @classmethod
    def of(cls, store: FolderRef, params: ReferenceParams, train: TrainParams) -> "_Costs":
        like = params.of_run(train, store.metadata["max_length"])
        mean = float(TokenizedSplit.load(store, "train").lengths.mean())
        row = [one.max_length if one.packing else mean for one in (train, like)]
        return cls(
            TokenizedSplit.load(store, "steering"),
            train.steps.total * rows_per_step(train) * row[0],
            rows_per_step(like) * row[1],
        )

    def measured(self, rows: tuple[int | None, int | None]) -> float:
        """Of one measurement on ``rows`` (rows and supervised tokens a domain)."""
        chosen = np.concatenate(chosen_rows(self.steering, *rows))
        return float(self.steering.lengths[chosen].sum()) / FORWARD

    def part(self, runs: MixShape) -> float:
        """Of all runs, as a part of the training."""
        if not runs.number:
            return 0.0
        measured = (runs.measured + 1) * self.measured((runs.rows, runs.tokens))
        return runs.number * (runs.steps * self.a_step + measured) / self.training


def _times(n: int) -> str:
    return {1: "once", 2: "twice"}.get(n, f"{n} times")


def _rows(n: int | None) -> str:
    return "all rows" if n is None else f"{n} rows"


def _within(asked: MixShape, part: float, cost: _Costs) -> Iterator[MixShape]:
    """Runs that cost no more than ``part`` of the training, the best first."""
    numbers = [asked.number, *([2] if asked.number > 2 else [])]
    for number in numbers:
        for least in (asked.steps, asked.steps / 2, LEAST_STEPS):
            for measured, divisor in SHORTENED:
                one = _measured_less(asked, cost.steering, measured, divisor)
                each = (measured + 1) * cost.measured((one.rows, one.tokens))
                affordable = (part * cost.training / number - each) / cost.a_step
                steps = int(min(asked.steps, affordable)) // measured * measured
                if steps >= max(least, LEAST_STEPS) // measured * measured:
                    yield one._replace(number=number, steps=steps)


def _measured_less(
    asked: MixShape, steering: TokenizedSplit, measured: int, divisor: int
) -> MixShape:
    rows, tokens = asked.rows, asked.tokens
    if divisor > 1:
        most = rows or int(np.diff(steering.starts).max())
        rows = min(most, max(-(-most // divisor), LEAST_ROWS))
        tokens = None if tokens is None else -(-tokens // divisor)
    return MixShape(asked.number, asked.steps, measured, rows, tokens)
