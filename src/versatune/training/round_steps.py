"""How many optimiser steps each round has."""

import math
from dataclasses import dataclass
from itertools import accumulate, pairwise


@dataclass(frozen=True)
class RoundSteps:
    """The rounds of a training, laid out over its steps; both count from 0."""

    of: tuple[int, ...]
    """Steps of each round."""

    @property
    def ends(self) -> tuple[int, ...]:
        """Steps taken when each round has ended."""
        return tuple(accumulate(self.of))

    @property
    def total(self) -> int:
        """Steps of all rounds."""
        return sum(self.of)

    @property
    def epoch(self) -> int:
        """Steps of a Trainer epoch: the greatest common divisor of the rounds' steps.

        Trainer's epochs all have one length, so a round consists of one or several.
        """
        return math.gcd(*self.of)

    def start(self, number: int) -> int:
        """Steps taken before round ``number``."""
        return sum(self.of[:number])

    def place(self, step: int) -> tuple[int, int]:
        """The round that is at hand after ``step`` steps, and its steps that are done.

        At the end of a round that is the next one, with none; at the end of all (rounds, 0).
        """
        number = sum(end <= step for end in self.ends)
        return number, step - self.start(number)

    @property
    def words(self) -> str:
        """``8 rounds of 50 steps``, ``8 rounds of 16 to 104 steps, 400 in all``."""
        least, most, n = min(self.of), max(self.of), len(self.of)
        rounds = "1 round" if n == 1 else f"{n} rounds"
        if least == most:
            return f"{rounds} of {least} steps"
        return f"{rounds} of {least} to {most} steps, {self.total} in all"


def round_steps(rounds: int, steps_per_round: int, growth: float = 1.0) -> RoundSteps:
    """``rounds`` rounds of ``rounds * steps_per_round`` steps in all.

    Each has about ``growth`` (>= 1) times the steps of the round before. Lengths are multiples of a
    common step count, the largest divisor of all steps that is at most half of the first round,
    so that Trainer's epochs stay few. Raises ValueError when the first round would have less than
    one step.
    """
    if growth == 1:
        return RoundSteps((steps_per_round,) * rounds)
    total = rounds * steps_per_round
    parts = [growth**number for number in range(rounds)]
    first = total / math.fsum(parts)
    if first < 1:
        raise ValueError(
            f"with round_growth {growth:g} the first of {rounds} rounds would have {first:.2g} of "
            f"all {total} steps: lower round_growth or rounds, or raise steps_per_round"
        )
    most = max(int(first / 2), 1)
    unit = max(d for d in range(1, most + 1) if total % d == 0)
    ends = [0, *(math.floor(sum(parts[: n + 1]) * first / unit + 0.5) for n in range(rounds))]
    return RoundSteps(tuple(unit * (b - a) for a, b in pairwise(ends)))
