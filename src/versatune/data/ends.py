"""What ends an answer where the chat template writes nothing behind it.

Some templates leave the end to the next turn (GLM's ``<|user|>``), others write no control token at
all, or words that the tokenizer knows no token for (ChatML on a base that was not extended). A
model that is trained on such texts as they are never learns to stop.
"""

import re

from versatune.data.spans import Rendered, Span


def end_between(between: str, behind: str, control: re.Pattern[str], begin: str, end: str) -> str:
    """The text that should end an answer; empty if the template ends it itself.

    ``between``: the template's text from an answer to what the user says next; ``behind``: from the
    last answer to the end. First come the words that the template writes behind an answer. Then
    the control token that opens the next turn ends it, unless it is the ``begin`` token; without
    one, the tokenizer's ``end`` token does.
    """
    if control.search(behind):
        return ""
    words = behind.rstrip()
    opening = re.match(rf"\s*(?P<token>{control.pattern})", between.removeprefix(words))
    if opening and opening["token"] not in ("", begin):
        return words + opening.group()
    return words + end if control.fullmatch(end) else ""


def with_end(rendered: Rendered, end: str, control: re.Pattern[str], begin: str) -> Rendered:
    """The text with ``end`` behind its last answer, and the ends of answers among their spans.

    An answer in the midst ends with the words of ``end``, and with the control token of the turn
    after it, if there is one.
    """
    text, spans = rendered.text, list(rendered.spans)
    words = control.split(end, maxsplit=1)[0].rstrip()
    token = end.removeprefix(words)
    following = re.compile(rf"\s*(?P<token>{control.pattern})")
    for number, span in enumerate(spans):
        if span.end > span.stop:
            continue
        stop = last = span.stop + len(words) * text.startswith(words, span.stop)
        if not text[stop:].strip():
            text = _closed(text, stop, token)
            last = len(text)
        elif (found := following.match(text, stop)) and found["token"] not in ("", begin):
            last = found.end()
        spans[number] = Span(span.start, stop, last)
    return Rendered(text, spans)


def _closed(text: str, stop: int, end: str) -> str:
    """``text``, of which only blanks follow ``stop``, up to ``end``, whose own blanks it may have
    already."""
    token = end.lstrip()
    blanks = end[: len(end) - len(token)]
    if end.startswith(text[stop:]) and not text[:stop].endswith(blanks or "\0"):
        return text[:stop] + end
    return text + token
