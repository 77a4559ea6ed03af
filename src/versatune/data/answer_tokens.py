"""The tokens of answers in rendered conversations: where they begin, what is scored, their end."""

import itertools
import string
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from versatune.data.conversations import Messages, RejectedError
from versatune.data.encode import Encoder, EncoderSpec
from versatune.data.spans import Span, n_common, without_blanks
from versatune.data.thoughts import CONTENT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EXAMPLE: Messages = [{"role": "user", "content": "a"}]


@dataclass(frozen=True)
class AnswerTokens:
    """A conversation whose last turn is an answer, as a training row holds it."""

    ids: list[int]
    first: int
    """The first token that the model writes: supervised, and behind the generation prompt."""
    content: tuple[int, int]
    """First and end position of the tokens with the content's characters."""
    end: int
    """Behind the last supervised token: the one that ends the answer, if any does."""


class AnswerEncoder:
    """Answers as tokens under one tokenizer and its chat template.

    Methods raise RejectedError when the template refuses the conversation.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        """Raises VersatuneError for a tokenizer that is not a fast one."""
        spec = EncoderSpec.of(tokenizer)
        self._encoder = Encoder(spec, sys.maxsize, "drop")
        self._template = self._encoder.template
        self._tokenizer = tokenizer
        self._vocabulary: dict[str, int] = tokenizer.get_vocab()
        self._control = {self._vocabulary[text] for text in spec.control}

    @cached_property
    def end(self) -> int | None:
        """The token that ends an answer; None when no control token does.

        Without one a model can't learn to stop.
        """
        (example,) = self.encode(EXAMPLE, ["b"])
        last = example.ids[example.end - 1]
        return last if last in self._control else None

    @cached_property
    def overhead(self) -> int:
        """Tokens of an answer besides those of its content."""
        (example,) = self.encode(EXAMPLE, ["b"])
        first, end = example.content
        return example.end - example.first - (end - first)

    @cached_property
    def prompt_alone(self) -> str:
        """What the generation prompt ends with and a row has not; empty for most templates."""
        text, _ = self._template.render([*EXAMPLE, message("b")])
        prompt = without_blanks(self._template.text(EXAMPLE, prompt=True))
        return prompt[n_common(prompt, text) :]

    def encode(
        self,
        asked: Messages,
        contents: Sequence[str],
        prefix: str = "",
        lead: str | None = None,
    ) -> list[AnswerTokens]:
        """The conversation ``asked`` with each of ``contents`` as its answer.

        ``prefix`` stands before every content and is counted to what is asked. ``lead``: what
        stands between the prompt and the content, where the answer has a thought; the prompt is
        then that of :meth:`thinking_prompt`, if there is one.
        """
        before, after = self._around(asked)
        prompt = without_blanks(self._template.text(asked, prompt=True))
        rendered = []
        for content in contents:
            text, spans = self._template.render([*asked, message(prefix + content)])
            answer = self._behind(prompt, text, spans)
            place = _content(text, answer, before + prefix, after)
            if lead is not None:
                text, answer, place = self._behind_lead(asked, lead, text, answer, place)
            rendered.append((text, [answer, place]))
        found = []
        for example in self._encoder.encode_rendered(rendered):
            if isinstance(example, RejectedError):
                raise example
            (first, end), (begin, stop) = example.spans
            begin, stop = max(begin, first), max(stop, begin, first)
            found.append(AnswerTokens(example.ids.tolist(), first, (begin, stop), end))
        return found

    def choices(
        self,
        asked: Messages,
        contents: Sequence[str],
        prefix: str = "",
        lead: str | None = None,
    ) -> list[tuple[list[int], list[int]]]:
        """For each content the tokens it is scored after, and those that are scored.

        Together they are the training row with this answer, up to where scoring ends: at the end
        of the content. Where a content's tokens begin another one's, the shorter could not lose,
        so then all are scored up to the end of the answer, the end token included. ``lead``: see
        :meth:`encode`.
        """
        rows = self.encode(asked, contents, prefix, lead)
        start = min(row.content[0] for row in rows)
        start = min(start, _shared([row.ids for row in rows]))
        scored = [row.ids[start : row.content[1]] for row in rows]
        if any(b[: len(a)] == a for a, b in itertools.permutations(scored, 2)):
            scored = [row.ids[start : row.end] for row in rows]
        if not all(scored):
            raise RejectedError("no_supervised_tokens", "a choice has no tokens")
        return [(row.ids[:start], tokens) for row, tokens in zip(rows, scored, strict=True)]

    def prompt(self, asked: Messages, prefix: str = "") -> list[int]:
        """The tokens after which the model writes its answer, as training rows have them.

        What the template writes of the answer itself (an empty thought) is not among them. A
        blank at the end of the prompt is left out where words take it into their first token.
        """
        (row,) = self.encode(asked, [self._joining], prefix)
        return row.ids[: row.content[0] if prefix else row.first]

    def prompt_text(self, asked: Messages) -> str:
        """The text before an answer."""
        return self._example(asked)[0]

    def decoded(self, ids: list[int], *, control: bool = True) -> str:
        """The text of tokens, with or without control tokens."""
        kept = ids if control else [token for token in ids if token not in self._control]
        return str(self._tokenizer.decode(kept))

    @cached_property
    def _joining(self) -> str:
        """The word that takes most of the blanks at the prompt's end into its first token."""
        common = sorted(self._vocabulary.items(), key=lambda entry: entry[1])
        begins = (token[1:] for token, _ in common if token[:1] in "\u0120\u2581")
        words = [*string.ascii_letters, *itertools.islice(filter(str.isalpha, begins), 50)]
        rows = self.encode(EXAMPLE, words)
        whole = max(rows, key=lambda row: row.first)
        joining = words[rows.index(whole)], whole.first
        for word, row in zip(words, rows, strict=True):
            taken = str(self._tokenizer.decode(whole.ids[row.first : whole.first]))
            if row.first < joining[1] and not taken.strip():
                joining = word, row.first
        result: str = joining[0]
        return result

    def _around(self, asked: Messages) -> tuple[str, str]:
        """What the template writes between the prompt and a content, and from there to the end."""
        before, found, after = self._example(asked)[1].partition(CONTENT)
        return (before, after) if found else ("", "")

    def _example(self, asked: Messages) -> tuple[str, str]:
        """The text before an answer, and an answer with a stand-in for its content."""
        text, spans = self._template.render([*asked, message(CONTENT)])
        prompt = without_blanks(self._template.text(asked, prompt=True))
        answer = self._behind(prompt, text, spans)
        return text[: answer.start], text[answer.start : answer.end]

    def _behind(self, prompt: str, text: str, spans: Sequence[Span]) -> Span:
        """The last answer, behind the generation prompt.

        A template that marks answers may mark the prompt's words as well, or an answer in pieces;
        and the prompt may go on otherwise (with a thought) than the conversation does.
        """
        common = n_common(prompt, text)
        if common < len(prompt):
            ends = [found.end() for found in self._template.control.finditer(text, 0, common)]
            common = ends[-1] if ends else 0
        last = spans[-1]
        first = next((s for s in spans if s.end > common), last) if common else last
        return Span(max(first.start, min(common, first.stop)), last.stop, last.end)

    def _before_lead(self, asked: Messages) -> str | None:  # noqa: ARG002
        """The text before an answer with a thought, where it is another one than without."""
        return None

    def _behind_lead(
        self, asked: Messages, lead: str, text: str, answer: Span, place: Span
    ) -> tuple[str, Span, Span]:
        """A rendered answer with ``lead`` before its content."""
        before = self._before_lead(asked) or text[: answer.start]
        head = before + lead
        by = len(head) - place.start
        moved = [Span(place.start + by, s.stop + by, s.end + by) for s in (answer, place)]
        return (
            head + text[place.start :],
            Span(len(before), moved[0].stop, moved[0].end),
            moved[1],
        )


def message(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def _content(text: str, answer: Span, before: str, after: str) -> Span:
    """Where the content stands in an answer: all of it where the template changes contents."""
    start, stop = answer.start, answer.stop
    if text.startswith(before, start):
        start += len(before)
    if text.endswith(after, start, answer.end):
        stop = answer.end - len(after)
    return Span(start, max(start, stop), max(start, stop))


def _shared(rows: Sequence[Sequence[int]]) -> int:
    """How many first tokens all rows have in common."""
    columns = zip(*rows, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))
