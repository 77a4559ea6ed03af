"""An answer as the chat template and the tokenizer make it: its tokens, its content and its end.

Labels, saved models and evaluation all use this definition of where an answer begins and ends. So a
model is prompted, scored and stopped with the tokens it was trained on. The tokens are those of
``answer_tokens``; here stands what a generated answer is, with a thought or without.
"""

import contextlib
import dataclasses
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

from versatune.data.answer_tokens import EXAMPLE, AnswerEncoder, AnswerTokens, message
from versatune.data.conversations import Messages, RejectedError
from versatune.data.spans import Span, n_common
from versatune.data.thoughts import ANSWERS, CONTENT, THOUGHT, Thought, Written

__all__ = ["AnswerTokens", "Answers", "stop_tokens"]


class _Shown(NamedTuple):
    """How the template shows an answer with a thought."""

    answer: dict[str, str]
    prompt: str
    text: str
    """All behind the prompt."""
    form: Thought


class Answers(AnswerEncoder):
    """Answers with their thoughts."""

    @cached_property
    def thinks(self) -> bool:
        """Whether the template writes more than blanks before the content, or knows thoughts."""
        beside = any(shown.answer is ANSWERS[0] for shown in self._shown)
        return bool(self._around(EXAMPLE)[0].strip()) or self._parsed or beside

    def thinking_prompt(self, asked: Messages) -> tuple[str, list[int]] | None:
        """Text and tokens before an answer with a thought, where others follow another prompt.

        Either the generation prompt opens a thought that other rows do not have (DeepSeek-R1's), or
        it closes an empty one, in the place of which the thought stands (Qwen3.5's small models).
        None for other templates: there the model itself decides whether it thinks.
        """
        if not self._two_ways:
            return None
        text, start = self._thinking(asked)
        (row,) = self.encoder.encode_rendered([(text, [Span(start, len(text), len(text))])])
        if isinstance(row, RejectedError):
            raise row
        return text[:start], row.ids[: row.spans[0][0]].tolist()

    @cached_property
    def opening(self) -> int:
        """Tokens in which a thought has begun, if the answer has one."""
        begun = [form.begin for form in self._readable(thinking=False)]
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
        if self._parsed and self._shown and (end := self._shown[0].form.end.strip()) in text:
            return Written(self._inner(text.rpartition(end)[2].lstrip("\n")))
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
        plain, other = self.prompt_text(EXAMPLE), self._thinking(EXAMPLE)
        other_prompt = other[0][: other[1]]
        common = n_common(plain, other_prompt)
        if opened := other_prompt[common:].strip():
            return prompt.rstrip().endswith(opened)
        return not prompt.rstrip().endswith(plain[common:].strip())

    def _inner(self, text: str) -> str:
        """A content without what the template writes behind it."""
        tail = self._template.control.split(self._written[1], maxsplit=1)[0]
        if tail.strip():
            text = text.rstrip().removesuffix(tail.rstrip()).removesuffix(tail.strip())
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
        (row,) = self.encode(EXAMPLE, [self._joining])
        ids, first = row.ids[: row.end], len(self.prompt(EXAMPLE))
        upto, whole = self.decoded(ids[first : row.content[1]]), self.decoded(ids[first:])
        at = upto.rfind(self._joining)
        if at < 0 or not whole.startswith(upto):
            return self._around(EXAMPLE)
        return whole[:at], whole[at + len(self._joining) :]

    @cached_property
    def _shown(self) -> list[_Shown]:
        """With a thought beside the content, and within the content; without what is not shown."""
        found = []
        for answer in ANSWERS:
            with contextlib.suppress(RejectedError):
                text, place = self._answered(EXAMPLE, answer)
                behind = text[place.start :]
                if form := Thought.of(behind, self._template.control):
                    found.append(_Shown(answer, text[: place.start], behind, form))
        return found

    @cached_property
    def _two_ways(self) -> bool:
        """Whether answers with a thought follow another prompt than those without one.

        A prompt that the model is taught to go on with itself is no other one.
        """
        if not self._shown:
            return False
        prompt = self.prompt_text(EXAMPLE)
        text, spans = self._template.render([*EXAMPLE, self._shown[0].answer])
        return not (text.startswith(prompt) and spans[-1].start <= len(prompt))

    def _readable(self, *, thinking: bool) -> list[Thought]:
        """How a thought may begin and end behind the prompt."""
        prompt = self.prompt_text(EXAMPLE)
        if thinking and self._two_ways:
            prompt = self._shown[0].prompt
        found = []
        for shown in self._shown:
            whole = shown.prompt + shown.text
            form = Thought.of(whole[len(prompt) :], self._template.control)
            if whole.startswith(prompt) and form is not None and form not in found:
                found.append(form)
        return found

    @cached_property
    def _parsed(self) -> bool:
        """Whether the template takes a thought out of a content only by its end."""
        whole = f"{THOUGHT}</think>{CONTENT}"
        try:
            text = self._template.text([*EXAMPLE, message(whole)])
        except RejectedError:
            return False
        return CONTENT in text and whole not in text

    def _thinking(self, asked: Messages) -> tuple[str, int]:
        """A conversation whose answer has a thought, and where the answer begins in it."""
        text, answer = self._answered(asked, self._shown[0].answer)
        return text, answer.start

    def _before_lead(self, asked: Messages) -> str | None:
        if not self._two_ways:
            return None
        text, start = self._thinking(asked)
        return text[:start]


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
