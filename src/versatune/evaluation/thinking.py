"""A model's reply to a question: its thought, if any, and its answer.

Generation begins where training rows have the answer begin, so the model itself decides whether it
thinks. Where rows with a thought follow another prompt than rows without one (see
``Answers.thinking_prompt``), the rows of the domain decide (``rows``); where they are mixed or not
known, the model is asked both ways, and the answer it is surer of counts: the one with the higher
mean log-probability of its tokens.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from lm_eval.api.instance import Instance

from versatune.data.answers import Answers
from versatune.data.conversations import Messages, RejectedError
from versatune.data.thoughts import Written

logger = logging.getLogger(__name__)

Rows = Literal["all", "some", "none"]
"""How many of a domain's rows hold a thought."""


@dataclass
class Thinking:
    """The limit of a model's thoughts, and counts of them."""

    tokens: int = 0
    """Tokens of a thought, at most; 0: a thought has no tokens besides those of the answer, and
    choices are scored as in a row without one."""
    rows: Rows | None = None
    """None: not known."""
    asked: int = 0
    """Questions that were answered with a thought."""
    unended: int = 0
    """Those of them whose thought did not end within the limit."""

    def tell(self, task: str) -> None:
        """Log how many thoughts did not end."""
        if self.unended:
            logger.warning(
                "%s: %d of %d thoughts did not end within evaluate.max_thought_tokens (%d): no "
                "answer was written to these questions; before choices the thought was cut.",
                task,
                self.unended,
                self.asked,
                self.tokens,
            )


@dataclass(frozen=True)
class Asked:
    """A question in the chat format."""

    messages: Messages
    prefix: str = ""
    """The beginning of the answer, where the task gives one."""
    thinking: bool = False
    """Whether it is asked as rows with a thought are, where those have a prompt of their own."""


class Writer(Protocol):
    """What is needed of :class:`~versatune.evaluation.conversations.Conversations`."""

    answers: Answers
    tokenizer: Any
    asked: dict[str, Asked]
    """Questions by their text."""
    ends: list[str]
    longest: int

    def tok_encode(self, string: str) -> list[int]: ...
    def generated(self, requests: list[Instance], disable_tqdm: bool) -> list[str]: ...
    def until_the_end(self, request: Instance, more: int = 0) -> Instance: ...
    def log_probabilities(self, rows: list[tuple[Any, list[int], list[int]]]) -> list[float]: ...


class Replies:
    """Asks questions in the chat format and separates thoughts from answers."""

    def __init__(self, lm: Writer, thinking: Thinking) -> None:
        self._lm, self.thinking = lm, thinking

    def of(self, requests: list[Instance], disable_tqdm: bool = True) -> list[Written]:
        """What the model writes to each of these questions; its thoughts are counted."""
        two = [self._with_thought(request) for request in requests]
        rows = self.thinking.rows
        if not self.thinking.tokens or rows == "none" or None in two:
            found = [written for _, written in self._written(requests, disable_tqdm)]
        else:
            ways = [(r, t) for r, t in zip(requests, two, strict=True) if t is not None]
            found = self._surest(ways, disable_tqdm)
        self.thinking.asked += sum(written.lead is not None for written in found)
        self.thinking.unended += sum(not written.ended for written in found)
        return found

    def leads(self, texts: Iterable[str], room: int) -> dict[str, str]:
        """For each question that the model thinks about, what it writes before the content.

        A thought that does not end is cut at the limit and closed as the template closes one.
        ``room``: tokens of a content.
        """
        texts = [text for text in texts if not self._lm.asked[text].prefix]
        if not self.thinking.tokens or self.thinking.rows == "none" or not texts:
            return {}
        if self._lm.answers.thinking_prompt(self._lm.asked[texts[0]].messages) is None:
            short = [_request(text, self._lm.answers.opening) for text in texts]
            begun = self._lm.generated([self._lm.until_the_end(r) for r in short], True)
            texts = [
                text
                for text, written in zip(texts, begun, strict=True)
                if self._lm.answers.begins_thought(written)
            ]
        found = self.of([_request(text, room) for text in texts]) if texts else []
        return {
            text: written.lead
            for text, written in zip(texts, found, strict=True)
            if written.lead is not None
        }

    def _surest(self, ways: list[tuple[Instance, Instance]], quiet: bool) -> list[Written]:
        """The answer to each question of which the model is surer, asked one way and the other."""
        thought = self._written([other for _, other in ways], quiet)
        if self.thinking.rows == "all":
            return [written for _, written in thought]
        plain = self._written([request for request, _ in ways], quiet)
        sure = [
            self._sureness([pair[number] for pair in ways], written)
            for number, written in enumerate((plain, thought))
        ]
        return [
            b if with_thought > without else a
            for (_, a), (_, b), without, with_thought in zip(plain, thought, *sure, strict=True)
        ]

    def _sureness(
        self, requests: Sequence[Instance], found: Sequence[tuple[str, Written]]
    ) -> list[float]:
        """Mean log-probability of the tokens of each answer behind its question."""
        rows = [self._tokens(r, *answer) for r, answer in zip(requests, found, strict=True)]
        scores = self._lm.log_probabilities(
            [
                ((r.args[0], text), *row)
                for r, (text, _), row in zip(requests, found, rows, strict=True)
            ]
        )
        return [
            s / len(tokens) if text else float("-inf")
            for s, (_, tokens), (text, _) in zip(scores, rows, found, strict=True)
        ]

    def _tokens(
        self, request: Instance, text: str, written: Written
    ) -> tuple[list[int], list[int]]:
        """A question and its answer as a training row holds them, its end included.

        Encoded apart from its question, the answer may have other tokens, as SentencePiece begins a
        text with a blank. An answer that no row would hold, such as one whose thought did not end,
        is nevertheless encoded apart.
        """
        asked = self._lm.asked[request.args[0]]
        if written.ended and (written.lead is not None) == asked.thinking:
            with contextlib.suppress(RejectedError):
                (row,) = self._lm.answers.encode(
                    asked.messages, [written.content], asked.prefix, written.lead
                )
                return row.ids[: row.first], row.ids[row.first : row.end]
        alone = self._lm.tokenizer(text, add_special_tokens=False).input_ids
        return self._lm.tok_encode(request.args[0]), alone or [0]

    def _written(self, requests: list[Instance], quiet: bool) -> list[tuple[str, Written]]:
        """Text and answer to each question; those that a thought left too little room, again."""
        first = [self._lm.until_the_end(request) for request in requests]
        texts = self._lm.generated(first, quiet)
        found = [(t, self._read(r, t)) for r, t in zip(requests, texts, strict=True)]
        again = [
            number
            for number, (text, written) in enumerate(found)
            if written.lead is not None and self._cut(first[number], text)
        ]
        longest = max((len(self._lm.tok_encode(requests[n].args[0])) for n in again), default=0)
        room = max((first[n].args[1].get("max_gen_toks", 0) for n in again), default=0)
        limit = self._lm.longest
        more = min(self.thinking.tokens, limit - longest - room if limit else self.thinking.tokens)
        if again and more > 0:
            longer = [self._lm.until_the_end(requests[n], more) for n in again]
            for number, text in zip(again, self._lm.generated(longer, quiet), strict=True):
                found[number] = text, self._read(requests[number], text)
        return found

    def _read(self, request: Instance, text: str) -> Written:
        return self._lm.answers.read(text, thinking=self._lm.asked[request.args[0]].thinking)

    def _cut(self, request: Instance, text: str) -> bool:
        """Whether a text with a thought ended at the limit, or at a text of the task's own."""
        if set(stop_texts(request)) - set(self._lm.ends):
            return True
        used = len(self._lm.tokenizer(text, add_special_tokens=False).input_ids)
        return bool(used + 2 >= request.args[1].get("max_gen_toks", used))

    def _with_thought(self, request: Instance) -> Instance | None:
        """The question asked as rows with a thought are, where that is another prompt."""
        asked = self._lm.asked[request.args[0]]
        found = None if asked.prefix else self._lm.answers.thinking_prompt(asked.messages)
        if found is None:
            return None
        self._lm.asked[found[0]] = dataclasses.replace(asked, thinking=True)
        return dataclasses.replace(request, arguments=(found[0], request.args[1]))


def stop_texts(request: Instance) -> list[str]:
    """Texts at which a task ends an answer."""
    until = request.args[1].get("until") or []
    return [until] if isinstance(until, str) else list(filter(None, until))


def _request(text: str, room: int) -> Instance:
    settings = {"max_gen_toks": room, "do_sample": False, "until": []}
    return Instance("generate_until", {}, (text, settings), 0, ("thought", 0, 1))
