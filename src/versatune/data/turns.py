"""A conversation as several texts, where a template shows an answer differently once others follow.

Each answer is taken from the conversation up to it, as the model is asked for it.
"""

import re
from itertools import product
from typing import Protocol

from versatune.data.conversations import Messages
from versatune.data.fields import RejectedError
from versatune.data.prepared import PLAIN, THINK, THOUGHT
from versatune.data.spans import Rendered, Span, n_common, without_blanks

_ASKS = re.compile(rf"(?:({THINK}\s*)?{THOUGHT}|{THINK})\s*\Z")
"""How a prompt ends that asks for an answer without a thought (it closes an empty one, which
DeepSeek-V3.1's does not open), or for one with a thought (it opens one)."""
_EMPTY = re.compile(rf"{THINK}\s*{THOUGHT}")


class Template(Protocol):
    """The methods of :class:`~versatune.data.templates.ChatTemplate` that these functions use."""

    marked: bool
    knows_thoughts: bool

    def render_text(self, messages: Messages, *, prompt: bool = False) -> str: ...
    def by_marks(self, messages: Messages) -> tuple[str, list[Span]]: ...
    def by_skeleton(
        self, text: str, messages: Messages, *, last: bool = False
    ) -> list[Span] | None: ...
    def ended(self, text: str, start: int, end: int) -> Span: ...


def by_turns(template: Template, messages: Messages, trained: list[int]) -> list[Rendered]:
    """Each answer where it stands as it does when it is the last turn; as few texts as do."""
    texts = [Rendered(template.render_text(messages))]
    for own in reversed([_turn(template, messages, i) for i in trained]):
        through = own.text[: own.spans[-1].end]
        holding = next((r for r in texts if r.text.startswith(through)), None)
        if holding is None:
            texts.append(own)
        else:
            holding.spans[:0] = own.spans
    return [r for r in reversed(texts) if r.spans]


def _turn(template: Template, messages: Messages, i: int) -> Rendered:
    """The conversation up to answer i, with that answer supervised."""
    upto, answer = messages[: i + 1], messages[i]
    own = _shown(template, upto)
    content = answer["content"]
    thought = content.rpartition(THOUGHT)[0].rpartition(THINK)[2]
    thought = (answer.get("reasoning_content") or thought).strip()
    if thought and not any(thought in own.text[s.start : s.end] for s in own.spans):
        own = _with_thought(template, upto, own, thought)
    if not own.spans:
        raise RejectedError(
            "template",
            f"the chat template rewrites turn {i + 1}: its text does not begin with the prompt",
        )
    return own


def _shown(template: Template, messages: Messages) -> Rendered:
    """A text with its last answer; without spans when that can't be found."""
    if template.marked:
        text, spans = template.by_marks(messages)
        before = template.render_text(messages[:-1])
        common = n_common(text, before)
        return Rendered(text, [s for s in spans if s.start >= common])
    text = template.render_text(messages)
    plain = [{k: v for k, v in m.items() if k != "reasoning_content"} for m in messages]
    # Thoughts of earlier turns may make no difference.
    if all(m.keys() == PLAIN for m in plain) and template.render_text(plain) == text:
        spans_found = template.by_skeleton(text, plain, last=True)
        if spans_found:
            return Rendered(text, spans_found[-1:])
    before = without_blanks(template.render_text(messages[:-1], prompt=True))
    if not text.startswith(before) and text.startswith(without := _ASKS.sub("", before)):
        before = without
    if not text.startswith(before):
        return _behind_prompt(template, messages, before, text)
    return Rendered(text, [template.ended(text, len(before), len(text))])


def _behind_prompt(template: Template, messages: Messages, prompt: str, text: str) -> Rendered:
    """The answer behind its prompt, where the template shows the turns before it differently once
    it is there (Mistral's shows a system turn only in the prompt).

    Without spans unless the turn before the answer ends alike in both.
    """
    asked = messages[-2]["content"].strip()
    after = text.rfind(asked) + len(asked)
    common = prompt[prompt.rfind(asked) + len(asked) :]
    if not asked or after < len(asked) or asked not in prompt or not text.startswith(common, after):
        return Rendered(text)
    answer = text[after + len(common) :]
    whole = prompt + answer
    return Rendered(whole, [template.ended(whole, len(prompt), len(whole))])


def _with_thought(
    template: Template, messages: Messages, shown: Rendered, thought: str
) -> Rendered:
    """The answer behind its prompt, where the template drops its thought.

    It takes the place of the empty thought that the template writes in the answer. What the
    template writes after the answer stays.
    """
    if not template.knows_thoughts:
        raise RejectedError("thought_not_shown", "the chat template can't show a thought")
    for span, empty in product(shown.spans, _EMPTY.finditer(shown.text)):
        if empty.end() > span.start and not shown.text[span.start : empty.start()].strip():
            filled = f"{THINK}\n{thought}\n{THOUGHT}"
            text = shown.text[: empty.start()] + filled + shown.text[empty.end() :]
            more = len(text) - len(shown.text)
            return Rendered(text, [Span(span.start, span.stop + more, span.end + more)])
    prompt = template.render_text(messages[:-1], prompt=True)
    if not prompt.rstrip().endswith(THINK):
        prompt = _ASKS.sub("", prompt)
    said = messages[-1]["content"]
    if THOUGHT not in said:
        said = f"{THINK}\n{thought}\n{THOUGHT}\n\n{said}"
    if prompt.rstrip().endswith(THINK):
        said = said.lstrip().removeprefix(THINK)
        said = said.lstrip("\n") if prompt.endswith("\n") else said
    ended = template.ended(shown.text, 0, len(shown.text))
    stop = len(prompt) + len(said)
    span = Span(len(without_blanks(prompt)), stop, stop + ended.end - ended.stop)
    return Rendered(prompt + said + shown.text[ended.stop :], [span])
