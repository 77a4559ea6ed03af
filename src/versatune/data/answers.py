"""An answer as the chat template and the tokenizer make it: its tokens, its content and its end.

Where an answer begins and ends is one fact. Labels, saved models and evaluation take it from
here, so a model is asked, scored and stopped in the very tokens it was trained on.
"""

import dataclasses
import itertools
import re
import string
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from versatune.data.conversations import Messages, RejectedError
from versatune.data.encode import Encoder, EncoderSpec
from versatune.data.spans import Span, n_common, without_blanks
from versatune.data.thoughts import ANSWERS, CONTENT, THOUGHT, Thought, Written

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_EXAMPLE: Messages = [{"role": "user", "content": "a"}]


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
        return bool(self._around(_EXAMPLE)[0].strip()) or self._parsed or self._forms[0] is not None

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
            text, spans = self._template.render([*asked, _answer(prefix + content)])
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

    def thinking_prompt(self, asked: Messages) -> tuple[str, list[int]] | None:
        """Text and tokens before an answer with a thought, where others follow another prompt.

        Either the generation prompt opens a thought that other rows do not have (DeepSeek-R1's), or
        it closes an empty one, in the place of which the thought stands (Qwen3.5's small models).
        None for other templates: there the model itself decides whether it thinks.
        """
        if not self._two_ways:
            return None
        text, start = self._thinking(asked)
        (row,) = self._encoder.encode_rendered([(text, [Span(start, len(text), len(text))])])
        if isinstance(row, RejectedError):
            raise row
        return text[:start], row.ids[: row.spans[0][0]].tolist()

    @cached_property
    def opening(self) -> int:
        """Tokens in which a thought has begun, if the answer has one."""
        begun = [form.begin for form in self._forms if form is not None]
        lengths = [len(self._tokenizer(text, add_special_tokens=False).input_ids) for text in begun]
        return max(lengths, default=0) + 3

    def begins_thought(self, text: str) -> bool:
        """Whether a generated text begins with a thought; see :meth:`read`."""
        return any(form.begins(text) for form in self._readable(thinking=False))

    def read(self, text: str, *, thinking: bool = False) -> Written:
        """A generated answer, of which ``text`` has all but its end.

        Thoughts are no part of its content, nor is what the template writes around a content.
        ``thinking``: it was asked for with :meth:`thinking_prompt`.
        """
        rendered = self._rendered(text)
        for form in self._readable(thinking=thinking):
            if found := form.read(rendered):
                return dataclasses.replace(found, content=self._inner(found.content))
        forms = [form for form in self._forms if form is not None]
        if self._parsed and forms and (found := _by_end(text, forms[0].end.strip())) is not None:
            return Written(self._inner(found))
        before, lead = self._written[0], text.lstrip()
        if lead.startswith(before.strip()):
            text = lead.removeprefix(before.strip()).removeprefix(before[len(before.rstrip()) :])
        return Written(self._inner(text))

    def content(self, text: str) -> str:
        """The content of a generated answer; empty where its thought does not end."""
        return self.read(text).content

    def read_behind(self, prompt: str, text: str) -> Written:
        """A generated answer behind the ``prompt`` of a training row."""
        return self.read(text, thinking=self._two_ways and self._asks_for_thought(prompt))

    def _asks_for_thought(self, prompt: str) -> bool:
        """Whether a row's prompt is that of rows with a thought, where there are two."""
        plain, other = self.prompt_text(_EXAMPLE), self._thinking(_EXAMPLE)
        other_prompt = other[0][: other[1]]
        common = n_common(plain, other_prompt)
        if opened := other_prompt[common:].strip():
            return prompt.rstrip().endswith(opened)
        return not prompt.rstrip().endswith(plain[common:].strip())

    def _inner(self, text: str) -> str:
        """A content without what the template writes behind it."""
        tail = self._template.control.split(self._written[1], maxsplit=1)[0]
        if tail.strip():
            text = text.rstrip().removesuffix(tail.strip())
        return self._template.control.sub("", text.removesuffix(tail))

    def _rendered(self, text: str) -> str:
        """A decoded text without the blanks that the tokenizer puts behind control tokens."""
        if not self._puts_blanks:
            return text
        return re.sub(rf"({self._template.control.pattern}) ", r"\1", text)

    @cached_property
    def _puts_blanks(self) -> bool:
        for token in sorted(self._control)[:1]:
            text = f"{self._tokenizer.convert_ids_to_tokens(token)}a"
            ids = self._tokenizer(text, add_special_tokens=False).input_ids
            return self.decoded(ids) == f"{text[:-1]} a"
        return False

    @cached_property
    def _written(self) -> tuple[str, str]:
        """What a generated answer holds before and behind its content.

        As the tokenizer reads it back, which may put blanks around control tokens, and with the
        prompt's last letters where a token takes them together with the answer's first.
        """
        (row,) = self.encode(_EXAMPLE, [self._joining])
        ids, first = row.ids[: row.end], len(self.prompt(_EXAMPLE))
        upto, whole = self.decoded(ids[first : row.content[1]]), self.decoded(ids[first:])
        at = upto.rfind(self._joining)
        if at < 0 or not whole.startswith(upto):
            return self._around(_EXAMPLE)
        return whole[:at], whole[at + len(self._joining) :]

    def decoded(self, ids: list[int], *, control: bool = True) -> str:
        """The text of tokens, with or without control tokens."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=not control))

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
        before, found, after = self._example(asked)[1].partition(CONTENT)
        return (before, after) if found else ("", "")

    def _example(self, asked: Messages) -> tuple[str, str]:
        """The text before an answer, and an answer with a stand-in for its content."""
        text, spans = self._template.render([*asked, _answer(CONTENT)])
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
    def _shown(self) -> tuple[tuple[str, str] | None, tuple[str, str] | None]:
        """Prompt and answer with a thought beside the content, and within the content."""
        beside, within = (self._try(answer) for answer in ANSWERS)
        return beside, within

    def _try(self, answer: dict[str, str]) -> tuple[str, str] | None:
        try:
            text, spans = self._template.render([*_EXAMPLE, answer])
            prompt = without_blanks(self._template.text(_EXAMPLE, prompt=True))
        except RejectedError:
            return None
        start = self._behind(prompt, text, spans).start
        shown = text[:start], text[start:]
        return shown if Thought.of(shown[1], self._template.control) else None

    @cached_property
    def _forms(self) -> tuple[Thought | None, Thought | None]:
        """What stands around a thought beside the content, and around one within the content."""
        beside, within = (
            shown and Thought.of(shown[1], self._template.control) for shown in self._shown
        )
        return beside, within

    @cached_property
    def _two_ways(self) -> bool:
        """Whether answers with a thought follow another prompt than those without one.

        A prompt that the model is taught to go on with itself is no other one.
        """
        shown = self._shown[0] or self._shown[1]
        if shown is None:
            return False
        prompt = self.prompt_text(_EXAMPLE)
        text, spans = self._template.render([*_EXAMPLE, ANSWERS[0 if self._shown[0] else 1]])
        return not (text.startswith(prompt) and spans[-1].start <= len(prompt))

    def _readable(self, *, thinking: bool) -> list[Thought]:
        """How a thought may begin and end behind the prompt."""
        prompt = self.prompt_text(_EXAMPLE)
        if thinking and self._two_ways:
            prompt = (self._shown[0] or self._shown[1] or ("", ""))[0]
        found = []
        for shown in filter(None, self._shown):
            whole = shown[0] + shown[1]
            form = Thought.of(whole[len(prompt) :], self._template.control)
            if whole.startswith(prompt) and form is not None and form not in found:
                found.append(form)
        return found

    @cached_property
    def _parsed(self) -> bool:
        """Whether the template takes a thought out of a content by its end alone."""
        whole = f"{THOUGHT}</think>{CONTENT}"
        try:
            text = self._template.text([*_EXAMPLE, _answer(whole)])
        except RejectedError:
            return False
        return CONTENT in text and whole not in text

    def _thinking(self, asked: Messages) -> tuple[str, int]:
        """A conversation whose answer has a thought, and where the answer begins in it."""
        answer = ANSWERS[0] if self._shown[0] else ANSWERS[1]
        text, spans = self._template.render([*asked, answer])
        prompt = without_blanks(self._template.text(asked, prompt=True))
        return text, self._behind(prompt, text, spans).start

    def _behind_lead(
        self, asked: Messages, lead: str, text: str, answer: Span, place: Span
    ) -> tuple[str, Span, Span]:
        """A rendered answer with ``lead`` before its content."""
        before = text[: answer.start]
        if self._two_ways:
            whole, start = self._thinking(asked)
            before = whole[:start]
        head = before + lead
        by = len(head) - place.start
        moved = [Span(place.start + by, s.stop + by, s.end + by) for s in (answer, place)]
        return (
            head + text[place.start :],
            Span(len(before), moved[0].stop, moved[0].end),
            moved[1],
        )


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


def _by_end(text: str, end: str) -> str | None:
    """What follows the last end of a thought."""
    return text.rpartition(end)[2].lstrip("\n") if end in text else None


def _shared(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with."""
    columns = zip(*rows, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))
