"""The one interface of all strategies: measured losses in, shares out.

A strategy gives the first shares by ``initial()`` and the next ones by ``update(Signals)``.
What it must remember (last and lowest losses, rewards, the guard's count) is a small JSON-able
dict, so that a resumed run continues exactly.
"""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from versatune.mixing import formulas
from versatune.mixing.config import ObjectiveParams
from versatune.mixing.objective import Objective, make_objective
from versatune.mixing.shares import Array, losses, shares
from versatune.mixing.traces import Trace

ROLLED_BACK = "back to round"
"""Stands in the reason of a round after which the model of an earlier one is taken."""

Stop = Literal["stop", "rollback"]
"""End training: with the model as it is, or going back to the best one."""


@dataclass(frozen=True)
class Context:
    """What a strategy may know before training; arrays have shape (k,)."""

    domains: tuple[str, ...]
    initial: Array | None = None
    """The shares training starts with, P(0)."""
    detected: Array | None = None
    """The shares of the knowledge distribution."""
    counts: Array | None = None
    """How much data each domain has, in the mixture's unit."""
    reference_loss: Array | None = None
    """r_j, held-out nats per token at the early-stopped minimum of a model of that domain."""
    base_loss: Array | None = None
    """l_j(0), the base model's held-out loss, measured before the first round."""
    objective: ObjectiveParams = field(default_factory=ObjectiveParams)
    """The objective, and each domain's tolerance."""
    traces: tuple[Trace, ...] = ()
    """Losses and shares of the runs before this training."""
    learning: float | None = None
    """The learning amount of the whole training: learning rate over its peak, summed over steps."""
    passes: Array | None = None
    """How many times the whole training would pass over each domain's rows at a share of 1."""
    rounds: int | None = None
    """How many rounds the training has; None when not known."""


@dataclass(frozen=True)
class Signals:
    """Measurements at the end of a round; arrays have shape (k,)."""

    round: int
    step: int
    weights: Array
    """The shares of the round that has ended."""
    validation_loss: Array
    train_loss: Array | None = None
    """Training loss of the round, NaN for a domain that was not drawn."""
    since_base_stderr: Array | None = None
    """Standard error of ln(l_j(t) / l_j(0)), paired by row: a row that is hard all along does not
    count as noise (:func:`versatune.intervals.log_ratio`)."""
    learning: float | None = None
    """Learning rate over its peak, summed over the steps of the round."""
    rate: float = 0.0
    """Learning rate over its peak at the end of the round."""
    learning_left: float | None = None
    """The same over the steps still to come; None when not known."""
    passes: Array | None = None
    """How many times each domain's rows were seen in training so far, this round among it."""


@dataclass(frozen=True)
class Decision:
    """The result of an update; arrays have shape (k,)."""

    weights: Array
    """Shares of the next round."""
    learnable_potential: Array
    """gamma_j, NaN where nothing defines it yet."""
    forgetting_degree: Array
    """phi_j, 0 at the first measurement when there is no l(0)."""
    reason: str
    """One sentence for the log and the history."""
    stop: Stop | None = None
    """End training, with the model as it is or going back to the last one marked ``best``."""
    best: bool = False
    """Whether this round's model is the best so far: what a rollback goes back to."""


@dataclass(frozen=True)
class RoundMetrics:
    """A round's signals, with what was worked out from them."""

    signals: Signals
    weights: Array
    loss: Array
    gamma: Array
    phi: Array


@dataclass
class _Memory:
    """What is kept between rounds; everything in it is JSON-able."""

    previous: list[float] | None = None
    lowest: list[float] | None = None
    first: list[float] | None = None
    best_score: float | None = None
    best_round: int | None = None
    updates: int = 0
    strikes: int = 0
    rise: float = 0.0
    reward: list[float] = field(default_factory=list)
    trace: dict[str, Any] | None = None


class Strategy(ABC):
    """The common part: remembers losses, measures gamma and phi, marks the best round.

    The best round has the lowest value of the declared objective.
    """

    smoothing = 0.0
    forgetting_baseline: Literal["previous", "best"] = "best"
    potential_source: Literal["reference", "progress"] = "reference"

    def __init__(self, context: Context, start: Array) -> None:
        self.context = context
        self._start = shares(start)
        self._memory = _Memory()
        if context.base_loss is not None:
            self._remember(np.asarray(context.base_loss, dtype=np.float64))
        self._objective()

    def initial(self) -> Array:
        """Shares of the first round, shape (k,), sum 1."""
        return self._start.copy()

    def update(self, signals: Signals) -> Decision:
        """Shares of the next round. Raises ValueError on NaN, wrong shapes, bad shares."""
        memory = self._memory
        weights = shares(signals.weights)
        loss = losses("validation_loss", signals.validation_loss)
        if loss.shape != weights.shape or weights.shape != self._start.shape:
            raise ValueError(f"expected {self._start.size} domains, got {loss.shape} losses")
        if memory.previous is not None:
            loss = formulas.smoothed(loss, memory.previous, self.smoothing)
        gamma = self._potential(loss)
        phi = self._forgetting(loss)
        memory.updates += 1
        now = RoundMetrics(signals, weights, loss, gamma, phi)
        new, reason, stop = self._next(now)
        self._remember(loss)
        score = self._score(now)
        best = score is not None and (memory.best_score is None or score < memory.best_score)
        if best:
            memory.best_score, memory.best_round = score, signals.round
        return Decision(new, gamma, phi, reason, stop, best)

    def state_dict(self) -> dict[str, Any]:
        """Everything remembered, as JSON types."""
        return asdict(self._memory)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        self._memory = _Memory(**state)

    @abstractmethod
    def _next(self, now: RoundMetrics) -> tuple[Array, str, Stop | None]:
        """The next shares, why, and whether training ends."""

    def _score(self, now: RoundMetrics) -> float | None:
        """What the best round has least of; None when this round can't be the best."""
        return self._objective().value(now.loss)

    def _objective(self) -> Objective:
        """The declared objective; before anything is measured its unit is 1."""
        domains, first = self.context.domains, self._memory.first
        return make_objective(
            self.context.objective,
            domains,
            first if first is not None else np.ones(len(domains)),
            self.context.reference_loss,
        )

    def _potential(self, loss: Array) -> Array:
        if self.potential_source == "progress":
            if self._memory.previous is None:
                return np.full(loss.shape, np.nan)
            return formulas.recent_progress(loss, self._memory.previous)
        if self.context.reference_loss is None:
            return np.full(loss.shape, np.nan)
        return formulas.learnable_potential(loss, self.context.reference_loss)

    def _forgetting(self, loss: Array) -> Array:
        memory = self._memory
        before = memory.previous if self.forgetting_baseline == "previous" else memory.lowest
        if before is None:
            return np.zeros(loss.shape)
        return formulas.forgetting_degree(loss, before)

    def _remember(self, loss: Array) -> None:
        memory = self._memory
        lowest = loss if memory.lowest is None else np.minimum(loss, memory.lowest)
        memory.previous, memory.lowest = loss.tolist(), lowest.tolist()
        memory.first = memory.first or loss.tolist()


class Static(Strategy):
    """Shares that never change: uniform, proportional, inverse, constant, custom."""

    def __init__(self, _params: object, context: Context, start: Array) -> None:
        super().__init__(context, start)

    def _next(self, now: RoundMetrics) -> tuple[Array, str, Stop | None]:
        return now.weights, "the shares are fixed", None
