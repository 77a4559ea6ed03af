"""The state of a mixture from round to round: weights, cursors, history."""

import math
import time
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from versatune.data.store import TokenizedSplit
from versatune.errors import VersatuneError
from versatune.mixing.draws import DrawState
from versatune.mixing.planner import Planner, RoundPlan, realised_shares
from versatune.mixing.shares import Array
from versatune.mixing.strategies import Context, Decision, Signals, Strategy, make_strategy
from versatune.mixing.traces import Trace, read_traces
from versatune.modeling.heldout import HeldOut
from versatune.training.batches import Row
from versatune.training.budget import learning_by_round, rate_by_round
from versatune.training.config import TrainParams
from versatune.training.job import MixtureInputs
from versatune.training.paired import PairedRows
from versatune.training.progress import OF_STEPS, RoundTiming
from versatune.training.throughput import Work


class Mixture:
    """Plans rounds and takes their results.

    All of :meth:`state` is JSON; a mixture that loads it plans the same rows again.
    """

    def __init__(
        self, params: TrainParams, train: TokenizedSplit, known: MixtureInputs, rows_per_step: int
    ) -> None:
        """``rows_per_step``: packed rows of a step, over accumulation and processes."""
        self.params, self.domains = params, train.domains
        self._known, self._train = known, train
        self._rows_per_step = rows_per_step
        self.planner = Planner(
            train.domains,
            train.starts,
            train.lengths,
            train.supervised,
            params,
            unit=params.unit,
            seed=params.seed,
        )
        self.round = 0
        """Rounds finished."""
        self.history: list[dict[str, Any]] = []
        self.ended: str | None = None
        """Why training ended before its last round."""
        self.rolls_back = False
        """Whether the trained model is the best round's, not the last one's."""
        self.best_round: int | None = None
        self.planning_seconds = 0.0
        self._draws = self.planner.initial_state()
        self._plan: RoundPlan | None = None
        self._rows: list[Row] | None = None
        self._strategy: Strategy | None = None
        self._weights: Array = np.zeros(len(train.domains))
        self.base_losses: list[float] = []
        """l(0), in the order of the domains; none before :meth:`begin` or :meth:`load`."""
        self._learning, self._rates = learning_by_round(params), rate_by_round(params)
        self.rows_measured = PairedRows(train.domains)

    def begin(self, base: Mapping[str, HeldOut], seconds: float) -> None:
        """Start from the base model's losses l(0): round 0 of the history."""
        self.rows_measured.begin(base)
        self._make_strategy([base[name].nats_per_token for name in self.domains])
        assert self._strategy is not None
        self._weights = self._strategy.initial()
        unknown = ("learnable_potential", "forgetting_degree", "since_base_stderr")
        timing = RoundTiming(seconds, seconds, 0)
        self._note(base, dict.fromkeys(unknown), "the base model", timing)

    def rows(self, epoch: int) -> list[Row]:
        """The packed rows of an epoch of the round at hand, in their order."""
        steps, n = self.params.steps, self._rows_per_step
        number, within = steps.place(epoch * steps.epoch)
        if number != self.round:
            raise RuntimeError(f"asked for the rows of round {number} in round {self.round}")
        if self._rows is None:
            plan = self._planned()
            ends, examples = plan.offsets.tolist(), plan.examples.tolist()
            rows = [tuple(examples[a:b]) for a, b in pairwise(ends)]
            self._rows = rows if self.params.packing else self._sorted_in_steps(rows)
        return self._rows[within * n : (within + steps.epoch) * n]

    def work(self, first: int, last: int) -> Work:
        """What the steps ``first`` to ``last - 1`` of the round at hand train on."""
        plan, n = self._planned(), self._rows_per_step
        start, stop = plan.offsets[first * n], plan.offsets[last * n]
        examples = plan.examples[start:stop]
        lengths = self._train.lengths[examples].astype(np.float64)
        supervised = self._train.supervised[examples].sum()
        return Work(float(lengths.sum()), float(supervised), float((lengths**2).sum()))

    def finish(
        self,
        step: int,
        heldout: Mapping[str, HeldOut],
        train_loss: Array,
        seconds: float,
        measurement_seconds: float,
        steps: Mapping[str, float | None] | None = None,
    ) -> Decision:
        """Take a round's results, choose the next round's weights, write the history.

        ``train_loss`` has shape (k,), NaN where a domain was not drawn. ``steps``: what the
        history says of the round's steps, see :data:`OF_STEPS`.
        """
        assert self._strategy is not None
        plan = self._planned()
        started = time.monotonic()
        losses = np.array([heldout[name].nats_per_token for name in self.domains])
        self.round += 1
        since_base = self.rows_measured.since_base(heldout)
        decision = self._strategy.update(
            Signals(
                self.round,
                step,
                self._weights,
                losses,
                train_loss,
                since_base_stderr=since_base,
                learning=float(self._learning[self.round - 1]),
                rate=float(self._rates[self.round - 1]),
                learning_left=float(self._learning[self.round :].sum()),
                passes=self.planner.epochs_seen(plan.state),
            )
        )
        if decision.best:
            self.best_round = self.round
        spent = RoundTiming(
            seconds,
            measurement_seconds + self.planning_seconds + time.monotonic() - started,
            plan.n_tokens,
        )
        columns = {
            "realised_share_rows": plan.realised("rows"),
            "realised_share_tokens": plan.realised("tokens"),
            "realised_share_supervised_tokens": plan.realised("supervised_tokens"),
            "epochs_seen": self.planner.epochs_seen(plan.state),
            "train_loss": train_loss,
            "since_base_stderr": since_base,
            "learnable_potential": decision.learnable_potential,
            "forgetting_degree": decision.forgetting_degree,
        }
        self._note(heldout, columns, decision.reason, spent, step, steps)
        self.planner.warn_repeats(self._draws, plan.state)
        self._draws, self._plan, self.planning_seconds = plan.state, None, 0.0
        self._rows = None
        self._weights = decision.weights
        if decision.stop is not None:
            self.ended, self.rolls_back = decision.reason, decision.stop == "rollback"
        return decision

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds, at a round's end or within a round."""
        assert self._strategy is not None
        return {
            "round": self.round,
            "weights": self._weights.tolist(),
            "draws": self._draws.to_json(),
            "strategy": self._strategy.state_dict(),
            "base_losses": self.base_losses,
            "rows_measured": self.rows_measured.state(),
            "history": self.history,
            "ended": self.ended,
            "rolls_back": self.rolls_back,
            "best_round": self.best_round,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self._make_strategy(state["base_losses"])
        assert self._strategy is not None
        self._strategy.load_state_dict(state["strategy"])
        self.rows_measured.load(state["rows_measured"])
        self.round, self._weights = state["round"], np.array(state["weights"])
        self._draws = DrawState.from_json(state["draws"])
        self.history = list(state["history"])
        self.ended, self.rolls_back = state["ended"], state["rolls_back"]
        self.best_round = state["best_round"]

    def _planned(self) -> RoundPlan:
        if self._plan is None:
            started = time.monotonic()
            self._plan = self.planner.plan_round(
                self._weights, self._draws, self.params.steps.of[self.round] * self._rows_per_step
            )
            self.planning_seconds += time.monotonic() - started
        return self._plan

    def _make_strategy(self, base: list[float]) -> None:
        self.base_losses = list(base)
        counts = self._train.amounts(self.params.unit)
        self._strategy = make_strategy(
            self.params.strategy,
            Context(
                domains=self.domains,
                initial=self._by_domain(self._known.initial_weights, "the initial mixture"),
                detected=self._by_domain(self._known.detected_shares, "the detected shares"),
                counts=counts,
                reference_loss=self._by_domain(self._known.reference_losses, "the references"),
                base_loss=np.array(base),
                objective=self.params.objective,
                traces=self._traces(),
                learning=float(self._learning.sum()),
                rounds=self._learning.size,
                passes=self.planner.passes_alone(
                    realised_shares(counts), self.params.steps.total * self._rows_per_step
                ),
            ),
        )

    def _traces(self) -> tuple[Trace, ...]:
        known = self._known.traces
        if known is None or not self.params.strategy.uses_law:
            return ()
        if tuple(known["domains"]) != self.domains:
            raise VersatuneError(
                f"the references' runs are of {', '.join(known['domains'])}, but the tokenised "
                f"store has {', '.join(self.domains)}: run the mixture pipeline again."
            )
        return read_traces(known)

    def _by_domain(self, values: Mapping[str, float] | None, what: str) -> Array | None:
        if values is None:
            return None
        missing = [name for name in self.domains if name not in values]
        if missing:
            raise VersatuneError(
                f"{what} name no value for {', '.join(missing)}, which the tokenised store has: "
                "run the stage that makes them again."
            )
        return np.array([values[name] for name in self.domains], dtype=np.float64)

    def _sorted_in_steps(self, rows: list[Row]) -> list[Row]:
        """The rows of each step from long to short, so that its batches pad little.

        Each step keeps the rows it was planned with. Steps of one length would be steps of few
        domains, and a token would weigh more in them the shorter its row, since a step divides by
        its own tokens.
        """
        n, lengths = self._rows_per_step, self._train.lengths
        steps = [rows[start : start + n] for start in range(0, len(rows), n)]
        return [row for step in steps for row in sorted(step, key=lambda r: -int(lengths[r[0]]))]

    def _note(
        self,
        heldout: Mapping[str, HeldOut],
        columns: Mapping[str, Any],
        reason: str,
        spent: RoundTiming,
        step: int = 0,
        steps: Mapping[str, float | None] | None = None,
    ) -> None:
        """Add a row a domain to the history: the contract's columns and where the time went.

        ``columns``: name -> a number a domain, shape (k,), or None where there is none.
        """
        columns = {
            "realised_share_rows": None,
            "realised_share_tokens": None,
            "realised_share_supervised_tokens": None,
            "epochs_seen": [0.0] * len(self.domains),
            "train_loss": None,
            **columns,
        }
        for j, name in enumerate(self.domains):
            measured = heldout[name]
            self.history.append(
                {
                    "round": self.round,
                    "step": step,
                    "domain": name,
                    "weight": float(self._weights[j]),
                    **{key: _number(v[j]) if v is not None else None for key, v in columns.items()},
                    "validation_loss": measured.nats_per_token,
                    "validation_stderr": measured.stderr,
                    "validation_bits_per_byte": measured.bits_per_byte,
                    "seconds": spent.seconds,
                    "measurement_seconds": spent.measurement_seconds,
                    "tokens_per_second": spent.tokens_per_second if step else None,
                    **{name: (steps or {}).get(name) for name in OF_STEPS},
                    "reason": reason,
                }
            )


def _number(value: Any) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else float(value)
