"""Messages prepared for a template: typed control tokens stay text, keys get standard names."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

LITERAL = ("\ufdd2", "\ufdd3")
"""Put around control tokens that a user typed. They are noncharacters, so no text contains them."""
THINK, THOUGHT = "<think>", "</think>"
"""The tags of a thought within a content."""
PLAIN = {"role", "content"}
"""The keys of a turn that is only a text."""
_TORN = re.compile(r"\\u[fF][dD]{2}[23dD]")
_UNMARKED = dict.fromkeys(map(ord, LITERAL))


def literal(message: dict[str, Any], control: re.Pattern[str], *, thoughts: bool) -> dict[str, Any]:
    """A turn in which control tokens stand between :data:`LITERAL` marks.

    ``thoughts``: leave the tags of thoughts in answers as they are.
    """
    own = thoughts and message["role"] == "assistant"

    def mark(found: re.Match[str]) -> str:
        token = found.group()
        return token if own and token in (THINK, THOUGHT) else token.join(LITERAL)

    def marked(value: Any) -> Any:
        if isinstance(value, str):
            return control.sub(mark, value.translate(_UNMARKED))
        if isinstance(value, dict):
            return {k: marked(v) for k, v in value.items()}
        return [marked(v) for v in value] if isinstance(value, list) else value

    return {k: v if k == "role" else marked(v) for k, v in message.items()}


def has_thought(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether an answer that is trained on has a thought, beside its content or within it."""
    return any(
        turn.get("reasoning_content") or THOUGHT in (turn.get("content") or "")
        for turn in messages
        if turn["role"] == "assistant" and turn.get("train") is not False
    )


def is_torn(text: str) -> bool:
    """Whether a template's ``tojson`` wrote a LITERAL mark as an escape."""
    return _TORN.search(text) is not None


def texts(value: Any) -> list[str]:
    """All texts in a message at any depth, without its role."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [t for k, v in value.items() if k != "role" for t in texts(v)]
    return [t for v in value for t in texts(v)] if isinstance(value, list) else []


def for_template(message: dict[str, Any], *, in_parts: bool = False) -> dict[str, Any]:
    """A turn as a template gets it: a thought under both names, as in transformers.

    ``in_parts``: the content as a list of one text, as models for images and texts take it.
    """
    if in_parts:
        message = {**message, "content": [{"type": "text", "text": message["content"]}]}
    if message.keys() == PLAIN:
        return message
    turn = {k: v for k, v in message.items() if k not in ("tools", "documents")}
    if thought := turn.get("reasoning_content"):
        turn["thinking"] = thought
    return turn


def arguments_as_text(message: dict[str, Any]) -> dict[str, Any]:
    """A turn with the arguments of its calls as JSON text."""
    if "tool_calls" not in message:
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": arguments}}
        for call in message["tool_calls"]
        for arguments in [json.dumps(call["function"]["arguments"], ensure_ascii=False)]
    ]
    return {**message, "tool_calls": calls}
