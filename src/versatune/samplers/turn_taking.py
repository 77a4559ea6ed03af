"""Following sequences that begin with a user's turn: the question, and then its answer."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from versatune.data.user_turn import UserTurn

_TAIL = 24
"""Tokens in which the words that end a turn are looked for."""

Decode = Callable[[list[int]], str]


@dataclass
class _Row:
    asked: list[int] = field(default_factory=list)
    answer: list[int] = field(default_factory=list)
    queue: list[int] = field(default_factory=list)
    """Tokens of the template's own that are still to come."""
    answers: bool = False
    ended: bool = False


class Conversations:
    """What was drawn, row by row, with the template's own tokens put between the two turns.

    A turn ends where the template ends it: at its control token, at its words, or at a token that
    ends all texts.
    """

    def __init__(
        self,
        turn: UserTurn,
        ends: Iterable[int],
        decode: Decode,
        rows: int,
        decode_answer: Decode | None = None,
    ) -> None:
        """``decode_answer``: with control tokens, by which a template may mark a thought."""
        self._turn, self._ends, self._decode = turn, set(ends), decode
        self._decode_answer = decode_answer or decode
        self._rows = [_Row() for _ in range(rows)]

    def steer(self, names: Sequence[int], drawn: Sequence[int]) -> tuple[list[int], list[bool]]:
        """The tokens that these rows go on with, and which of the rows ended with them."""
        went = [
            self._next(self._rows[name], token) for name, token in zip(names, drawn, strict=True)
        ]
        return went, [self._rows[name].ended for name in names]

    def follow(self, row: int, tokens: Iterable[int]) -> list[int]:
        """All tokens that ``row`` goes on with when these were drawn for it, up to the answer.

        What the template puts between question and answer is at their end.
        """
        found = self._rows[row]
        went = [self._next(found, token) for token in tokens]
        went += found.queue
        found.queue = []
        return went

    def answers(self, row: int) -> bool:
        """Whether the question has ended, and the answer has not."""
        return self._rows[row].answers and not self._rows[row].ended

    def ended(self, row: int) -> bool:
        """Whether the answer has ended."""
        return self._rows[row].ended

    def parts(self, row: int) -> tuple[str, str, str]:
        """What is asked, its answer (empty where the model came to none), the thought before it."""
        found = self._rows[row]
        asked = self._decode(found.asked)
        if found.answers and self._turn.end_id is None:
            asked = asked.rpartition(self._turn.end)[0] or asked
        written = self._turn.read(self._decode_answer(found.answer))
        return asked.strip(), written.content.strip(), written.thought

    def n_tokens(self, row: int) -> int:
        """How many tokens the model wrote."""
        return len(self._rows[row].asked) + len(self._rows[row].answer)

    def _next(self, row: _Row, drawn: int) -> int:
        if row.ended:
            return drawn
        if row.queue:
            return row.queue.pop(0)
        if row.answers:
            row.ended = drawn in self._ends
            if not row.ended:
                row.answer.append(drawn)
            return drawn
        return self._asks(row, drawn)

    def _asks(self, row: _Row, drawn: int) -> int:
        turn, handover = self._turn, self._turn.handover_ids
        if drawn == turn.end_id:
            row.answers = True
            row.queue = handover[handover.index(drawn) + 1 :]
            return drawn
        if drawn in self._ends:
            row.answers = True
            if not handover:
                return drawn
            row.queue = handover[1:]
            return handover[0]
        row.asked.append(drawn)
        if turn.end_id is None and turn.end:
            row.answers = turn.end in self._decode(row.asked[-_TAIL:])
        return drawn
