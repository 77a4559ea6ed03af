"""What ends an answer where the chat template writes nothing behind it.

Some templates leave the end to the next turn (GLM's ``<|user|>``), others write no control token at
all. A model that is trained on such texts as they are never learns to stop.
"""

import re

from versatune.data.spans import Rendered, Span


def end_between(between: str, behind: str, control: re.Pattern[str], begin: str, end: str) -> str:
    """The text that should end an answer; empty if the template ends it itself.

    ``between``: the template's text from an answer to what the user says next; ``behind``: from the
    last answer to the end. The control token that opens the next turn ends the answer before it,
    unless it is the ``begin`` token; without one, the tokenizer's ``end`` token does.
    """
    if control.search(behind):
        return ""
    opening = re.match(rf"\s*(?P<token>{control.pattern})", between)
    if opening and opening["token"] not in ("", begin):
        return opening.group()
    return end if control.fullmatch(end) else ""


def with_end(rendered: Rendered, end: str, control: re.Pattern[str], begin: str) -> Rendered:
    """The text with ``end`` behind its last answer, and the ends of answers among their spans.

    An answer in the midst ends with the control token of the turn after it, if there is one.
    """
    text, spans = rendered.text, list(rendered.spans)
    following = re.compile(rf"\s*(?P<token>{control.pattern})")
    for number, span in enumerate(spans):
        if span.end > span.stop:
            continue
        if not text[span.stop :].strip():
            text = _closed(text, span.stop, end)
            spans[number] = Span(span.start, span.stop, len(text))
        elif (found := following.match(text, span.stop)) and found["token"] not in ("", begin):
            spans[number] = Span(span.start, span.stop, found.end())
    return Rendered(text, spans)


def _closed(text: str, stop: int, end: str) -> str:
    """``text``, of which only blanks follow ``stop``, up to ``end``, whose own blanks it may have
    already."""
    token = end.lstrip()
    blanks = end[: len(end) - len(token)]
    if end.startswith(text[stop:]) and not text[:stop].endswith(blanks or "\0"):
        return text[:stop] + end
    return text + token
