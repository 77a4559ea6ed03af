"""Chat templates: the text of a conversation, and exactly which parts the assistant wrote.

Two ways to know the assistant's part, checked for each row:

1. the template marks it itself with ``{% generation %}``;
2. the template is rendered once for each sequence of roles with stand-ins for the contents. What
   stands between them is the template's own text; a conversation rendered for real must be these
   texts and the contents in turn, so the places of all contents are known. What
   ``add_generation_prompt`` adds belongs to the prompt, the rest up to the end token to the answer.

Templates that change contents in other ways fall back on rendering the turns before each answer.

What is supervised is what the model is asked for at that turn. Some templates show an answer
differently once others follow (the thoughts of earlier turns go): such a conversation becomes
several texts, each up to one answer, in which that answer is supervised. A row of which the answers
can't be found is rejected.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, cached_property
from typing import Any

import jinja2
from transformers.utils.chat_template_utils import (
    _compile_jinja_template,
    _render_with_assistant_indices,
)

from versatune.data.conversations import Messages
from versatune.data.ends import end_between, with_end
from versatune.data.fields import RejectedError
from versatune.data.prepared import (
    LITERAL,
    PLAIN,
    THOUGHT,
    arguments_as_text,
    for_template,
    is_torn,
    literal,
    texts,
)
from versatune.data.shown import check_shown
from versatune.data.spans import Rendered, Span, joined, without_blanks
from versatune.data.turns import by_turns

__all__ = ["LITERAL", "ChatTemplate", "Rendered", "Span"]

_STAND_IN = re.compile("\ufdd0(\\d+)\ufdd1")
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_TODAY = datetime(2024, 7, 26)
"""The date for templates that ask for one: the same conversation gives the same text every day."""
_REFUSALS = (jinja2.TemplateError, ArithmeticError, RecursionError, TypeError)
"""What a template raises: its own refusals, and what it computes wrongly."""


@dataclass(frozen=True)
class _Skeleton:
    """The template's own text around the contents of one sequence of roles."""

    parts: tuple[str, ...]
    """One more than there are messages."""
    prompts: tuple[int, ...]
    """How many characters of part i come before what the assistant writes itself."""
    ending: str
    """What ends the last answer: the text up to the first control token, or nothing."""
    stable: bool
    """Whether every answer stands in the whole as it does while it is the last turn."""


class ChatTemplate:
    """Renders conversations with one compiled template, in the sandbox of transformers."""

    def __init__(
        self, template: str, special_tokens: Mapping[str, str], control: Sequence[str]
    ) -> None:
        """``special_tokens``: the template's variables; ``control``: texts of control tokens."""
        self._compiled = _compile_jinja_template(template)
        self.marked = bool(_GENERATION.search(template))
        self.knows_thoughts = THOUGHT in template
        self._variables = {**special_tokens, "strftime_now": _TODAY.strftime}
        longest_first = sorted(filter(None, control), key=len, reverse=True)
        self.control = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._ending = re.compile(rf".*?(?:{self.control.pattern})", re.DOTALL)
        self._in_parts = False
        self._in_parts = not self._shows_texts() and self._shows_texts(in_parts=True)
        self._skeletons = cache(self._skeleton)
        self._parts = cache(self._parts_of)

    def render(self, messages: Messages) -> tuple[str, list[Span]]:
        """The text of a whole conversation and the answers that can be supervised in it, in order.

        Control tokens within contents come out between the :data:`LITERAL` marks. Raises
        RejectedError when the template refuses the conversation or can't show what it holds, or
        its answers can't be found.
        """
        last = self.examples(messages)[-1]
        return last.text, last.spans

    def examples(self, messages: Messages) -> list[Rendered]:
        """All texts that a conversation gives, so that every answer is supervised in one.

        Nearly always one, that of the whole. An answer that is shown differently once other turns
        follow is supervised in a text that ends with it. Turns with ``train: False`` are not
        supervised. Raises as :meth:`render`.
        """
        if any(self.control.search(text) for m in messages for text in texts(m)):
            messages = [literal(m, self.control, thoughts=self.knows_thoughts) for m in messages]
        trained = [
            i
            for i, m in enumerate(messages)
            if m["role"] == "assistant" and m.get("train") is not False
        ]
        messages = [{k: v for k, v in m.items() if k != "train"} for m in messages]
        try:
            found = self._at_once(messages, trained)
            if found is None:
                messages = self._with_arguments(messages)
                check_shown(self.render_text, messages)
                found = by_turns(self, messages, trained)
        except _REFUSALS as error:
            raise RejectedError("template", f"the chat template refuses it: {error}") from None
        if any(is_torn(example.text) for example in found):
            raise RejectedError("template", "the chat template escapes a typed control token")
        if end := self._end:
            begin = str(self._variables.get("bos_token", ""))
            found = [with_end(each, end, self.control, begin) for each in found]
        return found

    def text(self, messages: Messages, *, prompt: bool = False) -> str:
        """The text of a conversation, wherever its answers stand. Raises RejectedError."""
        try:
            return self.render_text(messages, prompt=prompt)
        except _REFUSALS as error:
            raise RejectedError("template", f"the chat template refuses it: {error}") from None

    def render_text(self, messages: Messages, *, prompt: bool = False) -> str:
        """What ``apply_chat_template`` gives, with the same variables (the date apart)."""
        result: str = self._compiled.render(
            **self._given(messages), add_generation_prompt=prompt, **self._variables
        )
        return result

    def _shows_texts(self, *, in_parts: bool = False) -> bool:
        """Whether contents come out that are given as texts, or as lists of parts."""
        self._in_parts = in_parts
        try:
            return self._parts_of(("user", "assistant")) is not None
        except _REFUSALS:
            return False

    def _given(self, messages: Messages) -> dict[str, Any]:
        first = messages[0] if messages else {}
        return {
            "messages": [for_template(m, in_parts=self._in_parts) for m in messages],
            "tools": first.get("tools"),
            "documents": first.get("documents"),
        }

    @cached_property
    def _end(self) -> str:
        """What ends answers where the template does not; see ``ends``."""
        try:
            pieces = _STAND_IN.split(self.render_text(_stand_ins(("user", "assistant"))))
            longer = _STAND_IN.split(self.render_text(_stand_ins(("user", "assistant") * 2)))
        except _REFUSALS:
            return ""
        if pieces[-2:-1] != ["1"]:
            return ""
        between = longer[longer.index("1") + 1] if "1" in longer[1::2] else ""
        begin, end = (str(self._variables.get(f"{which}_token", "")) for which in ("bos", "eos"))
        return end_between(between, pieces[-1], self.control, begin, end)

    def _with_arguments(self, messages: Messages) -> Messages:
        """Arguments of calls as the template takes them: an object, for some its JSON text."""
        if not any("tool_calls" in m for m in messages):
            return messages
        try:
            self.render_text(messages)
        except TypeError:
            return [arguments_as_text(m) for m in messages]
        return messages

    def _at_once(self, messages: Messages, trained: list[int]) -> list[Rendered] | None:
        """The whole with all its answers; None when some can't be found or supervised in it."""
        if not all(m.keys() == PLAIN for m in messages):
            return None
        answers = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
        if self.marked:
            if trained != answers or any(THOUGHT in messages[i]["content"] for i in answers):
                return None
            text, spans = self.by_marks(messages)
            if self.by_skeleton(text, messages) is None:
                return None
            return [Rendered(text, spans)]
        text = self.render_text(messages)
        spans_found = self.by_skeleton(text, messages)
        if spans_found is None:
            return None
        kept = [s for i, s in zip(answers, spans_found, strict=True) if i in trained]
        return [Rendered(text, kept)]

    def by_marks(self, messages: Messages) -> tuple[str, list[Span]]:
        """A text and what the template marks in it; at least one place."""
        text, found = _render_with_assistant_indices(
            self._compiled, add_generation_prompt=False, **self._given(messages), **self._variables
        )
        if not found:
            raise RejectedError("template", "the chat template marks no answer")
        # A template that marks only contents leaves out what ends the last answer, so all of them.
        found = joined(text, found)
        following = self._ending.match(text, found[-1][1])
        ending = following.group() if following else ""
        spans = []
        for start, end in found:
            span = self.ended(text, start, end)
            if span.end == span.stop and text.startswith(ending, end):
                span = Span(start, end, end + len(ending))
            spans.append(span)
        return text, spans

    def by_skeleton(
        self, text: str, messages: Messages, *, last: bool = False
    ) -> list[Span] | None:
        """None when the text is not made only of the template's parts and the contents.

        Also when an answer stands otherwise in it than as the last turn, unless ``last`` says
        that only the last one counts.
        """
        skeleton = self._skeletons(tuple(m["role"] for m in messages))
        if skeleton is None or not text.startswith(skeleton.parts[0]):
            return None
        if not (skeleton.stable or last):
            return None
        spans, at = [], 0
        for i, message in enumerate(messages):
            start = at + skeleton.prompts[i]
            at += len(skeleton.parts[i])
            following = skeleton.parts[i + 1]
            for content in (message["content"], message["content"].strip()):
                after = at + len(content)
                if text.startswith(content, at) and text.startswith(following, after):
                    break
            else:
                return None
            at = after
            if message["role"] == "assistant":
                ended = text.startswith(skeleton.ending, at)
                spans.append(Span(start, at, at + len(skeleton.ending) * ended))
        return spans if at + len(skeleton.parts[-1]) == len(text) else None

    def _skeleton(self, roles: tuple[str, ...]) -> _Skeleton | None:
        parts = self._parts(roles)
        if parts is None:
            return None
        messages = _stand_ins(roles)
        prompts = []
        for i, role in enumerate(roles):
            asked = ""
            if role == "assistant":
                asked = _STAND_IN.split(self.render_text(messages[:i], prompt=True))[-1]
            known = role == "assistant" and parts[i].startswith(asked)
            prompts.append(len(without_blanks(asked)) if known else len(parts[i]))
        ending = self._end_of(parts)
        stable = all(
            self._stands_alike(parts, roles[: i + 1])
            for i, role in enumerate(roles[:-1])
            if role == "assistant"
        )
        return _Skeleton(tuple(parts), tuple(prompts), ending, stable)

    def _parts_of(self, roles: tuple[str, ...]) -> list[str] | None:
        """The template's text around stand-ins; None when not all of them come out, in order."""
        pieces = _STAND_IN.split(self.render_text(_stand_ins(roles)))
        whole = pieces[1::2] == [str(i) for i in range(len(roles))]
        return pieces[::2] if whole else None

    def _stands_alike(self, whole: list[str], roles: tuple[str, ...]) -> bool:
        """Whether turns stand in the whole as they do while the last of them is the last turn."""
        try:
            alone = self._parts(roles)
        except _REFUSALS:
            return False
        if alone is None:
            return False
        last = len(roles)
        return whole[:last] == alone[:last] and whole[last].startswith(self._end_of(alone))

    def _end_of(self, parts: list[str]) -> str:
        found = self._ending.match(parts[-1])
        return found.group() if found else ""

    def ended(self, text: str, start: int, end: int) -> Span:
        """The span without blanks after the token that ends it."""
        matches = list(self.control.finditer(text, start, end))
        if not matches or text[matches[-1].end() : end].strip():
            return Span(start, end, end)
        return Span(start, matches[-1].start(), matches[-1].end())


def _stand_ins(roles: Sequence[str]) -> Messages:
    return [{"role": role, "content": f"\ufdd0{i}\ufdd1"} for i, role in enumerate(roles)]
