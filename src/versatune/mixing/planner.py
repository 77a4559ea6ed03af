"""The round planner: which examples a round trains on, in what order, in which packed row.

Rows are filled one by one. Whose turn it is says :mod:`versatune.mixing.schedule`, which holds
the shares at every example; the domain gives its next row, or towards the end of the packed row
the longest it has at hand that fits (:mod:`versatune.mixing.draws`); when none fits, the next due
domain is asked, and when none of these has anything, the row is closed.

Cost: O(log k + log lookahead) an example, and no Python object for a row that is not looked at.
"""

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from versatune.errors import VersatuneError
from versatune.mixing.config import Unit
from versatune.mixing.domain_sums import Counts, domain_maxima, domain_sums, sums_of
from versatune.mixing.draws import DrawState, Passes, Window
from versatune.mixing.plan_config import PlanParams
from versatune.mixing.schedule import Schedule
from versatune.mixing.shares import Array, shares

logger = logging.getLogger(__name__)


TRIES = 16
"""How many domains are asked for something that fits before a packed row is closed."""


@dataclass(frozen=True)
class RoundPlan:
    """The rows of a round. Arrays a domain have shape (k,)."""

    examples: Counts
    """Rows of the store in the order of training, shape (m,)."""
    offsets: Counts
    """Packed row i is ``examples[offsets[i]:offsets[i + 1]]``; shape (n_rows + 1,)."""
    state: DrawState
    """Where drawing stands after the round."""
    rows: Counts
    """Examples of each domain."""
    tokens: Counts
    supervised: Counts
    segments: tuple[tuple[int, Array], ...]
    """(first example, shares from there on): one, but for domains used up within the round."""
    bound: float
    """B, one packed row in the unit: the domains' counts lie no further than this from their
    shares of the total, after every example."""
    max_length: int

    @property
    def n_tokens(self) -> int:
        """Tokens in the round, without padding."""
        return int(self.tokens.sum())

    @property
    def efficiency(self) -> float:
        """The part of the packed rows' room that is filled."""
        return self.n_tokens / ((self.offsets.size - 1) * self.max_length)

    def realised(self, unit: Unit) -> Array:
        """Each domain's share of the round in ``unit``."""
        counts = {"rows": self.rows, "tokens": self.tokens, "supervised_tokens": self.supervised}
        return realised_shares(counts[unit])


def realised_shares(counts: npt.ArrayLike) -> Array:
    """``counts`` divided by their sum; all 0 where there is nothing."""
    values = np.asarray(counts, dtype=np.float64)
    total = values.sum()
    return values / total if total else values


class Planner:
    """Plans rounds over the rows of a tokenised store.

    Holds three arrays of the store and, for each domain, the order of its present pass; all
    else is in the :class:`DrawState` that goes in and comes out.
    """

    def __init__(
        self,
        domains: tuple[str, ...],
        starts: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int32],
        supervised: npt.NDArray[np.int32],
        params: PlanParams,
        *,
        unit: Unit,
        seed: int,
    ) -> None:
        """``starts`` (k + 1,): domain j has the rows from starts[j] up to starts[j + 1].

        Raises VersatuneError when an example is longer than a packed row, ValueError on arrays
        that do not fit together.
        """
        if starts.shape != (len(domains) + 1,) or not lengths.shape == supervised.shape == (
            starts[-1],
        ):
            raise ValueError("starts, lengths and supervised do not fit together")
        longest = int(lengths.max(initial=0))
        if longest > params.max_length:
            number = int((lengths > params.max_length).sum())
            raise VersatuneError(
                f"{number} examples are longer than max_length {params.max_length} (the longest "
                f"has {longest} tokens): raise it, or tokenise again with this length."
            )
        self.domains, self.params, self.unit = domains, params, unit
        self.starts, self.lengths, self.supervised = starts, lengths, supervised
        self.sizes: Counts = np.diff(starts)
        self._passes = Passes(starts, seed)
        self._limits = self._row_limits()
        self._tokens = domain_sums(lengths, starts)
        self._units = {
            "rows": self.sizes,
            "tokens": self._tokens,
            "supervised_tokens": domain_sums(supervised, starts),
        }[unit]
        largest = supervised if unit == "supervised_tokens" else lengths
        self._largest = np.ones(len(domains)) if unit == "rows" else domain_maxima(largest, starts)

    def initial_state(self) -> DrawState:
        """Nothing drawn yet."""
        return DrawState.start(len(self.domains))

    def epochs_seen(self, state: DrawState) -> Array:
        """How many times each domain's rows were seen, shape (k,); 0 for an empty domain."""
        return state.drawn(self.sizes) / np.maximum(self.sizes, 1)

    def passes_alone(self, weights: Array, n_rows: int) -> Array:
        """How many times ``n_rows`` packed rows pass over each domain's rows at a share of 1.

        The rows hold as much of the unit as they do at ``weights``: x_j times this is the passes
        over domain j at shares x near them. Shape (k,); 0 for an empty domain.
        """
        some = weights > 0
        per_unit = self._tokens if self.params.packing else self.sizes
        room = self.params.max_length if self.params.packing else 1
        a_unit = float((weights[some] * per_unit[some] / self._units[some]).sum())
        return np.where(self._units > 0, n_rows * room / a_unit / np.maximum(self._units, 1), 0.0)

    def plan_round(self, weights: npt.ArrayLike, state: DrawState, n_rows: int) -> RoundPlan:
        """Plan ``n_rows`` packed rows (examples, without packing) by ``weights`` from ``state``.

        A pure function of its arguments and the seed: the same on every rank and after a
        resume. Raises ValueError when the weights are not shares, VersatuneError when a domain
        with a share has nothing to draw, or when a cap is reached and the rule is to stop.
        """
        target = shares(weights)
        if target.size != len(self.domains) or n_rows < 1:
            raise ValueError(
                f"{target.size} weights for {len(self.domains)} domains, {n_rows} rows"
            )
        self._check(target, state)
        plan = _Round(self, target, state)
        for _ in range(n_rows):
            plan.add_row()
        return plan.finish()

    def bound(self, weights: Array) -> float:
        """B: what one packed row holds in the unit at these shares, at least one example."""
        some = weights > 0
        tokens_a_unit = float((weights[some] * self._tokens[some] / self._units[some]).sum())
        room = self.params.max_length if self.params.packing else tokens_a_unit
        return max(room / tokens_a_unit, float(self._largest[some].max()))

    def limit(self, domain: int) -> int | None:
        """How many draws the domain has in all; None without an effective cap."""
        return None if self.params.on_exhausted == "repeat" else self._limits[domain]

    def window(self, domain: int, state: DrawState) -> Window:
        """The rows at hand of ``domain``."""
        lookahead = self.params.lookahead if self.params.packing else 1
        rows = slice(int(self.starts[domain]), int(self.starts[domain + 1]))
        return Window(
            domain, self._passes, self.lengths[rows], state, lookahead, self.limit(domain)
        )

    def sizes_in_unit(self) -> npt.NDArray[np.int32] | None:
        """The size of each row of the store in the unit; None where it is the length."""
        if self.unit == "tokens":
            return None
        if self.unit == "supervised_tokens":
            return self.supervised
        return np.broadcast_to(np.int32(1), self.lengths.shape)

    def warn_repeats(self, before: DrawState, after: DrawState) -> None:
        """Log which domains have passed their cap between two states."""
        counts = zip(before.drawn(self.sizes), after.drawn(self.sizes), strict=True)
        for name, limit, (old, new) in zip(self.domains, self._limits, counts, strict=True):
            if limit is not None and old <= limit < new:
                logger.warning("%s has been seen %s times and is repeated.", name, self._cap(name))

    def used_up(self, domain: int) -> VersatuneError:
        """The error for a domain that has reached its cap."""
        name = self.domains[domain]
        return VersatuneError(
            f"{name} has reached epoch_cap {self._cap(name)} ({self._limits[domain]} rows): train "
            "for fewer rounds, raise the cap, or set on_exhausted to redistribute or repeat."
        )

    def _cap(self, name: str) -> float | None:
        cap = self.params.epoch_cap
        return cap.get(name) if isinstance(cap, dict) else cap

    def _row_limits(self) -> list[int | None]:
        caps = self.params.epoch_cap
        if isinstance(caps, dict) and (unknown := sorted(caps.keys() - set(self.domains))):
            raise VersatuneError(
                f"epoch_cap: there is no domain {unknown[0]!r}; "
                f"the domains are {', '.join(self.domains)}."
            )
        return [
            None if (cap := self._cap(name)) is None else max(int(cap * size), 1)
            for name, size in zip(self.domains, self.sizes, strict=True)
        ]

    def _check(self, target: Array, state: DrawState) -> None:
        if len(state.cursors) != len(self.domains) or (np.array(state.cursors) > self.sizes).any():
            raise ValueError("the draw state belongs to other data")
        for j in np.flatnonzero((target > 0) & (self._units == 0)):
            raise VersatuneError(
                f"{self.domains[j]} has a share of {target[j]:.4g} but no training "
                f"{self.unit.replace('_', ' ')}: add data or give it a share of 0."
            )


class _Round:
    """A round in the making."""

    def __init__(self, planner: Planner, weights: Array, state: DrawState) -> None:
        self._planner, self._before = planner, state
        self._windows: list[Window | None] = [None] * weights.size
        self._starts: list[int] = planner.starts.tolist()
        self._sizes = planner.sizes_in_unit()
        self._examples: list[int] = []
        self._offsets = [0]
        self._segments: list[tuple[int, Array]] = []
        self._bound = planner.bound(weights)
        self._ahead = np.array(state.ahead)
        self._begin(weights)

    def _begin(self, weights: Array) -> None:
        """Count anew from here on by ``weights``."""
        self._segments.append((len(self._examples), weights))
        self._active: list[int] = np.flatnonzero(weights).tolist()
        self._schedule = Schedule(weights[self._active], self._bound, self._ahead[self._active])

    def add_row(self) -> None:
        """Fill one packed row."""
        params = self._planner.params
        room = params.max_length
        while room > 0:
            length = self._place(room)
            room -= length
            if not length or not params.packing:
                break
        self._offsets.append(len(self._examples))

    def _place(self, room: int) -> int:
        """Put one example of at most ``room`` tokens into the row: its length, 0 if none fits."""
        schedule = self._schedule
        while schedule.asked < TRIES and (turn := schedule.turn()) is not None:
            domain = self._active[turn]
            window = self._windows[domain]
            if window is None:
                window = self._windows[domain] = self._planner.window(domain, self._before)
            found = window.find(room, begins=room == self._planner.params.max_length)
            if found is None:
                if window.used_up:
                    self._drop(domain)
                    schedule = self._schedule
                continue
            example, length = self._starts[domain] + found[0], found[1]
            size = length if self._sizes is None else int(self._sizes[example])
            if schedule.allows(size):
                window.draw()
                schedule.give(size)
                self._examples.append(example)
                return length
            if schedule.asked:
                break
        schedule.end()
        return 0

    def _drop(self, domain: int) -> None:
        """A domain has reached its cap: an error, or its share goes to the others."""
        planner = self._planner
        self._ahead[self._active] = self._schedule.ahead
        self._ahead[domain] = 0.0
        rest = self._segments[-1][1].copy()
        rest[domain] = 0.0
        if planner.params.on_exhausted == "stop" or not rest.any():
            raise planner.used_up(domain)
        logger.info("%s is used up; the other domains take its share.", planner.domains[domain])
        self._begin(rest / rest.sum())

    def finish(self) -> RoundPlan:
        """The plan of the rows added."""
        planner, before = self._planner, self._before
        k = len(planner.domains)
        examples = np.array(self._examples, dtype=np.int64)
        domain = np.searchsorted(planner.starts, examples, side="right") - 1
        positions = [
            window.position()
            if window is not None
            else (before.passes[j], before.cursors[j], before.pending[j])
            for j, window in enumerate(self._windows)
        ]
        passes, cursors, pending = zip(*positions, strict=True)
        self._ahead[self._active] = self._schedule.ahead
        state = DrawState(passes, cursors, pending, tuple(self._ahead.tolist()))
        return RoundPlan(
            examples=examples,
            offsets=np.array(self._offsets, dtype=np.int64),
            state=state,
            rows=np.bincount(domain, minlength=k),
            tokens=sums_of(domain, planner.lengths[examples], k),
            supervised=sums_of(domain, planner.supervised[examples], k),
            segments=tuple(self._segments),
            bound=self._bound,
            max_length=planner.params.max_length,
        )
