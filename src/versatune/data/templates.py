"""Chat templates: the text of a conversation, and exactly which of it the assistant says.

Two ways to know the assistant's part, checked for each row:

1. the template marks it itself with ``{% generation %}``;
2. the template is rendered once for each sequence of roles with stand-ins for the contents. What
   stands between them is the template's own text; a conversation rendered for real must be these
   texts and the contents in turn, so the places of all contents are known. What
   ``add_generation_prompt`` adds belongs to the prompt, the rest up to the end token to the answer.

Templates that change contents in other ways fall back on rendering the turns before each answer;
a row for which that is not a beginning of the whole can't be labelled, and is rejected.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import jinja2
from transformers.utils.chat_template_utils import (
    _compile_jinja_template,
    _render_with_assistant_indices,
)

from versatune.data.conversations import Messages, RejectedError

LITERAL = ("\ufdd2", "\ufdd3")
"""Put around control tokens that a user typed; noncharacters, so no text has them."""
_STAND_IN = re.compile("\ufdd0(\\d+)\ufdd1")
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_TODAY = datetime(2024, 7, 26)
"""The date for templates that ask for one: the same conversation gives the same text every day."""
_REFUSALS = (jinja2.TemplateError, ArithmeticError, RecursionError, TypeError)
"""What a template raises: its own refusals, and what it computes wrongly."""


@dataclass(frozen=True)
class Span:
    """Where one answer stands in a rendered text, in characters."""

    start: int
    stop: int
    """The end of what is said."""
    end: int
    """The end of the token that ends the turn."""


@dataclass(frozen=True)
class _Skeleton:
    """The template's own text around the contents of one sequence of roles."""

    parts: tuple[str, ...]
    """One more than there are messages."""
    prompts: tuple[int, ...]
    """How many characters of part i come before what the assistant writes itself."""
    ending: str
    """What ends the last answer: the text up to the first control token, or nothing."""


class ChatTemplate:
    """Renders conversations with one compiled template, in the sandbox of transformers."""

    def __init__(
        self, template: str, special_tokens: Mapping[str, str], control: Sequence[str]
    ) -> None:
        """``special_tokens``: the template's variables; ``control``: texts of control tokens."""
        self._compiled = _compile_jinja_template(template)
        self._marked = bool(_GENERATION.search(template))
        self._variables = {**special_tokens, "strftime_now": _TODAY.strftime}
        longest_first = sorted(filter(None, control), key=len, reverse=True)
        self.control = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._ending = re.compile(rf".*?(?:{self.control.pattern})", re.DOTALL)
        self._skeletons: dict[tuple[str, ...], _Skeleton | None] = {}

    def render(self, messages: Messages) -> tuple[str, list[Span]]:
        """The text of a conversation and its answers, in order.

        Control tokens within contents come out between the :data:`LITERAL` marks. Raises
        RejectedError when the template refuses the conversation, or its answers can't be found.
        """
        if any(self.control.search(m["content"]) for m in messages):
            messages = [{**m, "content": self._mark(m["content"])} for m in messages]
        try:
            if self._marked:
                return self._by_marks(messages)
            text = self._render(messages)
            spans = self._by_skeleton(text, messages)
            return text, spans if spans is not None else self._by_beginnings(text, messages)
        except _REFUSALS as error:
            raise RejectedError("template", f"the chat template refuses it: {error}") from None

    def text(self, messages: Messages) -> str:
        """The text of a conversation, wherever its answers stand. Raises RejectedError."""
        try:
            return self._render(messages)
        except _REFUSALS as error:
            raise RejectedError("template", f"the chat template refuses it: {error}") from None

    def _mark(self, content: str) -> str:
        for mark in LITERAL:
            content = content.replace(mark, "")
        return self.control.sub(f"{LITERAL[0]}\\g<0>{LITERAL[1]}", content)

    def _render(self, messages: Messages, *, prompt: bool = False) -> str:
        return self._compiled.render(
            messages=messages, add_generation_prompt=prompt, **self._variables
        )

    def _by_marks(self, messages: Messages) -> tuple[str, list[Span]]:
        text, found = _render_with_assistant_indices(
            self._compiled, messages, None, None, False, **self._variables
        )
        if not found:
            raise RejectedError("template", "the chat template marks no answer")
        # A template that marks contents alone leaves out what ends the last answer, so all of them.
        following = self._ending.match(text, found[-1][1])
        ending = following.group() if following else ""
        spans = []
        for start, end in found:
            span = self._ended(text, start, end)
            if span.end == span.stop and text.startswith(ending, end):
                span = Span(start, end, end + len(ending))
            spans.append(span)
        return text, spans

    def _by_skeleton(self, text: str, messages: Messages) -> list[Span] | None:
        """None when the text is not made of the template's parts and the contents alone."""
        roles = tuple(m["role"] for m in messages)
        if roles not in self._skeletons:
            self._skeletons[roles] = self._skeleton(roles)
        skeleton = self._skeletons[roles]
        if skeleton is None or not text.startswith(skeleton.parts[0]):
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
        messages = [{"role": role, "content": f"\ufdd0{i}\ufdd1"} for i, role in enumerate(roles)]
        pieces = _STAND_IN.split(self._render(messages))
        if pieces[1::2] != [str(i) for i in range(len(roles))]:
            return None
        parts = pieces[::2]
        prompts = []
        for i, role in enumerate(roles):
            asked = ""
            if role == "assistant":
                asked = _STAND_IN.split(self._render(messages[:i], prompt=True))[-1]
            known = role == "assistant" and parts[i].startswith(asked)
            prompts.append(len(asked) if known else len(parts[i]))
        ending = self._ending.match(parts[-1])
        return _Skeleton(tuple(parts), tuple(prompts), ending.group() if ending else "")

    def _by_beginnings(self, text: str, messages: Messages) -> list[Span]:
        spans = []
        for i, message in enumerate(messages):
            if message["role"] == "assistant":
                before = self._render(messages[:i], prompt=True)
                through = self._render(messages[: i + 1])
                if not (text.startswith(through) and through.startswith(before)):
                    raise RejectedError(
                        "template", f"the chat template rewrites turn {i + 1} when others follow"
                    )
                spans.append(self._ended(text, len(before), len(through)))
        return spans

    def _ended(self, text: str, start: int, end: int) -> Span:
        """The span without blanks after the token that ends it."""
        matches = list(self.control.finditer(text, start, end))
        if not matches or text[matches[-1].end() : end].strip():
            return Span(start, end, end)
        return Span(start, matches[-1].start(), matches[-1].end())
