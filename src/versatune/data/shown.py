"""Whether a chat template shows what a conversation holds besides its texts.

A template that knows no tools renders a conversation with tools without a word about them: the
model would learn to answer what it can't know. So every part is replaced by a different word,
and each word must be in the rendered text.
"""

import copy
import json
from collections.abc import Callable
from typing import Any

from versatune.data.conversations import Messages
from versatune.data.fields import RejectedError

_WORD = "qxzv{}vzxq"
"""Occurs in no text, and every template filter leaves it as it is."""


def check_shown(render: Callable[..., str], messages: Messages) -> None:
    """Raise RejectedError unless the template shows all turns, tools, calls, results and speakers.

    ``render``: the text of a conversation, with ``prompt=True`` as it asks for an answer. Thoughts
    are not looked at: a template may drop those of earlier turns on purpose. Nor are answers: they
    are looked for where they are to be supervised.
    """
    marked, wanted = _with_words(messages)
    text = render(marked) + render(marked[:-1], prompt=True)
    missing = {what for word, what in wanted.items() if word not in text}
    if missing & _TOOLS:
        what = ", ".join(sorted(missing & _TOOLS))
        raise RejectedError("tools_not_shown", f"the chat template can't show tools ({what})")
    if missing:
        what = ", ".join(sorted(missing))
        raise RejectedError("fields_not_shown", f"the chat template can't show {what}")


_TOOLS = {"a tool's schema", "a call", "arguments of a call", "a tool's result"}


def _with_words(messages: Messages) -> tuple[Messages, dict[str, str]]:
    """A copy with a word in each place, and for each word what it stands for."""
    wanted: dict[str, str] = {}

    def word(what: str) -> str:
        wanted[name := _WORD.format(len(wanted))] = what
        return name

    marked: Messages = copy.deepcopy(messages)
    for turn in marked:
        for tool in turn.get("tools", ()):
            tool["function"]["name"] = word("a tool's schema")
        for document in turn.get("documents", ()):
            _fill(document, word)
        for call in turn.get("tool_calls", ()):
            call["function"]["name"] = word("a call")
            given = call["function"]["arguments"]
            if given not in ({}, "{}"):
                value = {"value": word("arguments of a call")}
                call["function"]["arguments"] = (
                    json.dumps(value) if isinstance(given, str) else value
                )
        if "tool_calls" in turn and turn["content"].strip():
            turn["content"] = word("what is said beside a call")
        if turn["role"] in ("system", "user"):
            turn["content"] = word(f"a turn of the {turn['role']}")
        if turn["role"] == "tool":
            turn["content"] = word("a tool's result")
        elif "name" in turn:
            turn["name"] = word("the names of speakers (name)")
    return marked, wanted


def _fill(document: dict[str, Any], word: Callable[[str], str]) -> None:
    """One text of a document must be shown: which one is the choice of the template."""
    shown = word("documents")
    for key, value in document.items():
        if isinstance(value, str):
            document[key] = shown
