"""Drawing rows of a domain without replacement: passes, and a window of rows at hand."""

from bisect import bisect_left, bisect_right, insort
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

_POSITION_BITS = 32
_POSITION_MASK = (1 << _POSITION_BITS) - 1
_CHUNK = 128


@dataclass(frozen=True)
class DrawState:
    """Where each domain's drawing stands; tuples of length k. Small, JSON-able, immutable.

    A pass goes once through a domain's rows in an order set by (seed, domain, pass). Rows
    before the cursor were drawn, but for the pending ones, which were passed over because they
    did not fit and are drawn before the pass ends.
    """

    passes: tuple[int, ...]
    """Passes finished."""
    cursors: tuple[int, ...]
    """Positions of the present pass that were looked at."""
    pending: tuple[tuple[int, ...], ...]
    """Positions before the cursor that were not drawn."""
    ahead: tuple[float, ...]
    """How much more than its shares each domain has had so far, in the unit of the shares."""

    @classmethod
    def start(cls, k: int) -> Self:
        """Nothing drawn from any of ``k`` domains."""
        return cls((0,) * k, (0,) * k, ((),) * k, (0.0,) * k)

    def to_json(self) -> dict[str, Any]:
        """As JSON types; :meth:`from_json` turns it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The state that :meth:`to_json` gave."""
        return cls(
            tuple(value["passes"]),
            tuple(value["cursors"]),
            tuple(tuple(positions) for positions in value["pending"]),
            tuple(value["ahead"]),
        )

    def drawn(self, sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Rows drawn so far, shape (k,), for domains of these ``sizes``."""
        waiting = np.array([len(positions) for positions in self.pending], dtype=np.int64)
        result: npt.NDArray[np.int64] = (
            np.array(self.passes, dtype=np.int64) * sizes + np.array(self.cursors) - waiting
        )
        return result


class Passes:
    """The order of rows in every domain's passes; one pass a domain is kept in memory."""

    def __init__(self, starts: npt.NDArray[np.int64], seed: int) -> None:
        self._starts = starts
        self._seed = seed
        self._kept: dict[int, tuple[int, npt.NDArray[np.int32]]] = {}

    def order(self, domain: int, number: int) -> npt.NDArray[np.int32]:
        """Rows of ``domain`` relative to its first, in the order of pass ``number``."""
        kept = self._kept.get(domain)
        if kept is None or kept[0] != number:
            size = int(self._starts[domain + 1] - self._starts[domain])
            rng = np.random.default_rng([self._seed, domain, number])
            order = np.arange(size, dtype=np.int32)
            rng.shuffle(order)
            kept = self._kept[domain] = (number, order)
        return kept[1]


class Window:
    """The next rows of one domain, at most ``lookahead``, sorted by length.

    A key holds a row's length above its position in the pass, the position inverted so that of
    equally long rows the earliest comes out first.
    """

    def __init__(
        self,
        domain: int,
        passes: Passes,
        lengths: npt.NDArray[np.int32],
        state: DrawState,
        lookahead: int,
        limit: int | None,
    ) -> None:
        """``lengths`` are the domain's; ``limit`` is how many draws it has in all."""
        self._domain, self._passes, self._lengths = domain, passes, lengths
        self._lookahead, self._limit = lookahead, limit
        self.number, self._cursor = state.passes[domain], state.cursors[domain]
        self._keys: list[int] = []
        self._open(state.pending[domain])

    def find(self, room: int, *, begins: bool) -> tuple[int, int] | None:
        """A row at hand of at most ``room`` tokens as (row, length), or None.

        The earliest of the pass where it ``begins`` a packed row or leaves room for another (of
        median length), else the longest that fits: always the longest would sort the passes of
        small domains by length. The row is relative to the domain's first.
        """
        at = bisect_right(self._keys, (room + 1) << _POSITION_BITS)
        if not at:
            return None
        while self._queue[0] in self._gone:
            self._gone.remove(self._queue.popleft())
        first, longest = self._queue[0], self._keys[at - 1]
        left = room - (first >> _POSITION_BITS)
        median = self._keys[len(self._keys) // 2] >> _POSITION_BITS
        self._found = first if begins or left >= median else longest
        position = _POSITION_MASK - (self._found & _POSITION_MASK)
        return int(self._order[position]), self._found >> _POSITION_BITS

    def draw(self) -> None:
        """Take the row out that :meth:`find` gave last."""
        del self._keys[bisect_left(self._keys, self._found)]
        if self._queue[0] == self._found:
            self._queue.popleft()
        else:
            self._gone.add(self._found)
        if self._cursor < self._end:
            insort(self._keys, self._next_key())
        elif not self._keys and self._end == self._order.size:
            self.number, self._cursor = self.number + 1, 0
            self._open(())

    @property
    def used_up(self) -> bool:
        """Whether the limit is reached and nothing is left to draw."""
        return not self._keys

    def position(self) -> tuple[int, int, tuple[int, ...]]:
        """(pass, cursor, pending): what :class:`DrawState` keeps, as short as it can be.

        Rows at the end of what was looked at that were not drawn are given back to the pass.
        """
        pending = sorted(_POSITION_MASK - (key & _POSITION_MASK) for key in self._keys)
        cursor = self._cursor
        while pending and pending[-1] == cursor - 1:
            cursor = pending.pop()
        return self.number, cursor, tuple(pending)

    def _open(self, pending: tuple[int, ...]) -> None:
        """Start on the present pass with ``pending`` positions and as many more as there's room."""
        self._order = self._passes.order(self._domain, self.number)
        size = self._order.size
        self._end = size
        if self._limit is not None:
            self._end = max(min(size, self._limit - self.number * size), 0)
        self._chunk: list[int] = []
        self._chunk_from = self._cursor
        self._keys = [self._key(p, int(self._lengths[self._order[p]])) for p in pending]
        self._queue, self._gone = deque(self._keys), set[int]()
        while len(self._keys) < self._lookahead and self._cursor < self._end:
            self._keys.append(self._next_key())
        self._keys.sort()

    def _next_key(self) -> int:
        """Look at the next row of the pass; lengths are fetched in chunks, as lists are fast."""
        at = self._cursor - self._chunk_from
        if at >= len(self._chunk):
            self._chunk_from, at = self._cursor, 0
            rows = self._order[self._cursor : self._cursor + max(_CHUNK, self._lookahead)]
            self._chunk = self._lengths[rows].tolist()
        key = self._key(self._cursor, self._chunk[at])
        self._cursor += 1
        self._queue.append(key)
        return key

    @staticmethod
    def _key(position: int, length: int) -> int:
        return (length << _POSITION_BITS) | (_POSITION_MASK - position)
