"""An answer as the chat template and the tokenizer make it: its tokens, its content and its end.

Where an answer begins and ends is one fact. Labels, saved models and evaluation take it from
here, so a model is asked, scored and stopped in the very tokens it was trained on.
"""

import itertools
import string
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from versatune.data.conversations import Messages, RejectedError
from versatune.data.encode import Encoder, EncoderSpec
from versatune.data.spans import Span, n_common, without_blanks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CONTENT, _THOUGHT = "\ufdd4", "\ufdd5"
"""Stand-ins; noncharacters, so no text has them."""
_EXAMPLE: Messages = [{"role": "user", "content": "a"}]
_REASONING = ("reasoning_content", "reasoning", "thinking")
"""Keys in which templates expect a thought beside the content."""
_THINK = ("<think>", "</think>")


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


@dataclass(frozen=True)
class Thought:
    """How a template writes a thought before the content."""

    begin: str
    end: str
    parsed: bool
    """Whether the template takes a thought out of a content by its end alone."""


class Answers:
    """Answers under one tokenizer and its chat template.

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
        (example,) = self.encode(_EXAMPLE, ["b"])
        last = example.ids[example.end - 1]
        return last if last in self._control else None

    @cached_property
    def overhead(self) -> int:
        """Tokens of an answer besides those of its content."""
        (example,) = self.encode(_EXAMPLE, ["b"])
        first, end = example.content
        return example.end - example.first - (end - first)

    @cached_property
    def prompt_alone(self) -> str:
        """What the generation prompt ends with and a row has not; empty for most templates."""
        text, _ = self._template.render([*_EXAMPLE, _answer("b")])
        prompt = without_blanks(self._template.text(_EXAMPLE, prompt=True))
        return prompt[n_common(prompt, text) :]

    @cached_property
    def thinks(self) -> bool:
        """Whether the template writes more than blanks before the content, or knows thoughts."""
        return bool(self._around(_EXAMPLE)[0].strip()) or self._thought.parsed

    def encode(
        self, asked: Messages, contents: Sequence[str], prefix: str = ""
    ) -> list[AnswerTokens]:
        """The conversation ``asked`` with each of ``contents`` as its answer.

        ``prefix`` stands before every content and is counted to what is asked.
        """
        before, after = self._around(asked)
        prompt = without_blanks(self._template.text(asked, prompt=True))
        rendered = []
        for content in contents:
            text, spans = self._template.render([*asked, _answer(prefix + content)])
            answer = self._behind(prompt, text, spans)
            place = _content(text, answer, before + prefix, after)
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
        self, asked: Messages, contents: Sequence[str], prefix: str = ""
    ) -> list[tuple[list[int], list[int]]]:
        """For each content the tokens it is scored after, and those that are scored.

        Together they are the training row with this answer, up to where scoring ends: at the end
        of the content. Where a content's tokens begin another one's, the shorter could not lose,
        so then all are scored up to the end of the answer, the end token included.
        """
        rows = self.encode(asked, contents, prefix)
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

    def content(self, text: str) -> str:
        """The content of a generated answer, of which ``text`` has all but its end.

        Thoughts are left out, and so is what the template writes around a content. A thought
        that does not end leaves no content.
        """
        before, after = self._written
        thought, lead = self._thought, text.lstrip()
        begun = self._thinks_already or self._template.control.sub("", lead).lstrip().startswith(
            thought.begin
        )
        if thought.end in text and (begun or thought.parsed):
            text = text.rpartition(thought.end)[2].lstrip("\n")
        elif begun:
            return ""
        elif lead.startswith(before.strip()):
            text = lead.removeprefix(before.strip()).removeprefix(before[len(before.rstrip()) :])
        tail = self._template.control.split(after, maxsplit=1)[0]
        if tail.strip():
            text = text.rstrip().removesuffix(tail.strip())
        return self._template.control.sub("", text.removesuffix(tail))

    @cached_property
    def _written(self) -> tuple[str, str]:
        """What a generated answer holds before and behind its content.

        As the tokenizer reads it back, which may put blanks around control tokens, and with the
        prompt's last letters where a token takes them together with the answer's first.
        """
        (row,) = self.encode(_EXAMPLE, [self._joining])
        ids, first = row.ids[: row.end], len(self.prompt(_EXAMPLE))
        upto, whole = self._decoded(ids[first : row.content[1]]), self._decoded(ids[first:])
        at = upto.rfind(self._joining)
        if at < 0 or not whole.startswith(upto):
            return self._around(_EXAMPLE)
        return whole[:at], whole[at + len(self._joining) :]

    def _decoded(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))

    @cached_property
    def _joining(self) -> str:
        """The word that takes most of the blanks at the prompt's end into its first token."""
        common = sorted(self._vocabulary.items(), key=lambda entry: entry[1])
        begins = (token[1:] for token, _ in common if token[:1] in "\u0120\u2581")
        words = [*string.ascii_letters, *itertools.islice(filter(str.isalpha, begins), 50)]
        rows = self.encode(_EXAMPLE, words)
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
        before, found, after = self._example(asked)[1].partition(_CONTENT)
        return (before, after) if found else ("", "")

    def _example(self, asked: Messages) -> tuple[str, str]:
        """The text before an answer, and an answer with a stand-in for its content."""
        text, spans = self._template.render([*asked, _answer(_CONTENT)])
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

    @cached_property
    def _thought(self) -> Thought:
        """From the template where it takes thoughts, else as most models write them."""
        prompt = self.prompt_text(_EXAMPLE)
        for key in _REASONING:
            text = self._try({**_answer(_CONTENT), key: _THOUGHT})
            begin, _, rest = text.partition(_THOUGHT)
            end, found, _ = rest.partition(_CONTENT)
            if found and end.strip() and begin.startswith(prompt):
                return Thought(begin[len(prompt) :].strip() or _THINK[0], end.strip(), True)
        whole = f"{_THOUGHT}{_THINK[1]}{_CONTENT}"
        text = self._try(_answer(whole))
        return Thought(*_THINK, parsed=_CONTENT in text and whole not in text)

    @cached_property
    def _thinks_already(self) -> bool:
        """Whether the prompt ends within a thought."""
        return self.prompt_text(_EXAMPLE).rstrip().endswith(self._thought.begin)

    def _try(self, answer: dict[str, str]) -> str:
        try:
            return self._template.text([*_EXAMPLE, answer])
        except RejectedError:
            return ""


def stop_tokens(tokenizer: Any, own: int | Sequence[int] | None) -> list[int]:
    """Token ids that end a generated answer: the template's end, then the model's ``own``.

    ``own``: ``eos_token_id`` of a generation config.
    """
    try:
        end = Answers(tokenizer).end
    except RejectedError:
        end = None
    found = [own] if isinstance(own, int) else list(own or [])
    return found if end is None or end in found else [end, *found]


def _answer(content: str) -> dict[str, str]:
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
    """How many tokens all rows begin with."""
    columns = zip(*rows, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))
