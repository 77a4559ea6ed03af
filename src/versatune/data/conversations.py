"""From a row of any known shape to a checked conversation."""

import math
import re
from collections.abc import Mapping
from typing import Any

from versatune.data.config import FIELDS, Shape

Messages = list[dict[str, str]]
"""``[{"role": "system" | "user" | "assistant", "content": text}, ...]``, or a document alone."""

DOCUMENT = "document"
"""The role of the only message of a row that is no conversation but a text of its own."""

OPTIONAL = ("input", "system")

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
}
"""Names that files use for the three roles."""

_VISIBLE = re.compile(r"[^\s\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_ESCAPED_BYTE = re.compile(r"[\udc80-\udcff]")


class RejectedError(Exception):
    """A row that can't be used: ``reason`` is counted, ``detail`` is for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def conversation(values: Mapping[str, Any], shape: Shape, columns: Mapping[str, str]) -> Messages:
    """The checked conversation of one row. Raises RejectedError with the reason."""
    fields = {f: values.get(columns.get(f, f)) for f in FIELDS[shape]}
    for field in FIELDS[shape]:
        if field not in OPTIONAL and columns.get(field, field) not in values:
            raise RejectedError("missing_column", f"no {columns.get(field, field)!r}")
    if shape == "text":
        text = _text(fields, "text")
        _check_text(DOCUMENT, text)
        return [{"role": DOCUMENT, "content": text}]
    if shape == "alpaca":
        prompt, extra = _text(fields, "instruction"), _optional(fields, "input")
        user = f"{prompt}\n\n{extra}" if prompt and extra else prompt or extra
        turns = [("user", user), ("assistant", _text(fields, "output"))]
    elif shape == "prompt_completion":
        turns = [("user", _text(fields, "prompt")), ("assistant", _text(fields, "completion"))]
    elif shape == "messages":
        turns = _turns(fields["messages"], "messages", "role", "content")
    else:
        turns = _turns(fields["conversations"], "conversations", "from", "value")
    if "system" in fields and (system := _optional(fields, "system")):
        turns.insert(0, ("system", system))
    return _checked(turns)


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields[name]
    if isinstance(value, str):
        return value
    if isinstance(value, float) and math.isnan(value):
        raise RejectedError("nan", f"{name} is NaN")
    raise RejectedError("wrong_type", f"{name} is {_kind(value)}, not text")


def _optional(fields: Mapping[str, Any], name: str) -> str:
    value = fields[name]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    text = _text(fields, name)
    return text if _VISIBLE.search(text) else ""


def _turns(value: Any, name: str, role_key: str, text_key: str) -> list[tuple[str, str]]:
    if not isinstance(value, list):
        raise RejectedError("wrong_type", f"{name} is {_kind(value)}, not a list")
    turns = []
    for number, turn in enumerate(value, start=1):
        if not isinstance(turn, Mapping) or not isinstance(turn.get(role_key), str):
            raise RejectedError("wrong_type", f"turn {number} of {name} has no {role_key!r}")
        role = ROLES.get(turn[role_key].strip().lower())
        if role is None:
            raise RejectedError("unknown_role", f"turn {number} has the role {turn[role_key]!r}")
        turns.append((role, _content(turn.get(text_key), f"{text_key} of turn {number}")))
    return turns


def _content(value: Any, name: str) -> str:
    """The text of a turn; a list of parts, as OpenAI has it, is joined when all are text."""
    if isinstance(value, list) and all(
        isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in value
    ):
        return "".join(part["text"] for part in value)
    return _text({name: value}, name)


def _checked(turns: list[tuple[str, str]]) -> Messages:
    talk = turns[1:] if turns and turns[0][0] == "system" else turns
    roles = [role for role, _ in talk]
    if "assistant" not in roles:
        raise RejectedError("no_assistant_turn", f"{len(turns)} turns, none of an assistant")
    if roles[0] == "assistant" and roles[-1] == "user":
        raise RejectedError("roles_inverted", "begins with the assistant and ends with the user")
    if any(role != ("user", "assistant")[i % 2] for i, role in enumerate(roles)):
        raise RejectedError("roles_do_not_alternate", " ".join(roles[:8]))
    if roles[-1] != "assistant":
        raise RejectedError("ends_with_user", "the last turn has no answer")
    for role, text in turns:
        _check_text(role, text)
    return [{"role": role, "content": text} for role, text in turns]


def _check_text(role: str, text: str) -> None:
    said = "the document" if role == DOCUMENT else f"a turn of the {role}"
    if not _VISIBLE.search(text):
        kind = {"assistant": "empty_output", DOCUMENT: "empty_document"}.get(role, "empty_prompt")
        raise RejectedError(kind, f"{said} is empty")
    if not text.isascii() and (found := _SURROGATE.search(text)):
        if _ESCAPED_BYTE.match(found.group()):
            raise RejectedError("not_utf8", f"an undecodable byte in {said}")
        raise RejectedError("lone_surrogate", f"half a character in {said}")


def is_document(messages: Messages) -> bool:
    """Whether a row is a document, not a conversation."""
    return messages[0]["role"] == DOCUMENT


def _kind(value: Any) -> str:
    return "missing" if value is None else f"a {type(value).__name__}"
