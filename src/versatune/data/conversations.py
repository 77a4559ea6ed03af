"""From a row of any known shape to a checked conversation."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from versatune.data.config import FIELDS, Shape
from versatune.data.fields import (
    RejectedError,
    calls_of,
    content_of,
    documents_of,
    history_of,
    kind_of,
    text_of,
    tools_of,
    turn_fields,
)

__all__ = ["DOCUMENT", "Messages", "RejectedError", "conversation", "is_document"]

Messages = list[dict[str, Any]]
"""``[{"role": "system" | "user" | "assistant" | "tool", "content": text}, ...]``.

A turn may also have what ``fields.turn_fields`` gives. What belongs to the whole conversation
(``tools``, ``documents``) stands on its first turn. A row that is no conversation is one message
of the role :data:`DOCUMENT`.
"""

DOCUMENT = "document"
"""The role of the only message of a row of raw text."""

OPTIONAL = ("input", "system", "history", "tools", "documents")

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "tool": "tool",
    "tool_response": "tool",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
}
"""Names that files use for the four roles."""
CALLING = ("function_call", "tool_call")
"""Roles of turns of the assistant whose text is a call of a tool, as JSON."""

_VISIBLE = re.compile(
    r"[^\s\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f"
    r"\u2028-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0]"
)
"""Matches any visible character."""
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_ESCAPED_BYTE = re.compile(r"[\udc80-\udcff]")


def conversation(values: Mapping[str, Any], shape: Shape, columns: Mapping[str, str]) -> Messages:
    """The checked conversation, or document, of one row. Raises RejectedError with the reason."""
    fields = {f: values.get(columns.get(f, f)) for f in FIELDS[shape]}
    for field in FIELDS[shape]:
        if field not in OPTIONAL and columns.get(field, field) not in values:
            raise RejectedError("missing_column", f"no {columns.get(field, field)!r}")
    if shape == "text":
        text = _text(fields, "text")
        if not _VISIBLE.search(text):
            raise RejectedError("empty_document", "the document is empty")
        return _encodable([_turn(DOCUMENT, text)])
    if shape == "alpaca":
        prompt, extra = _text(fields, "instruction"), _optional(fields, "input")
        user = f"{prompt}\n\n{extra}" if prompt and extra else prompt or extra
        turns = [_turn("user", user), _turn("assistant", _text(fields, "output"))]
    elif shape == "prompt_completion":
        prompt, completion = _text(fields, "prompt"), _text(fields, "completion")
        turns = [_turn("user", prompt), _turn("assistant", completion)]
    elif shape == "messages":
        turns = _turns(fields["messages"], "messages", "role", "content")
    else:
        turns = _turns(fields["conversations"], "conversations", "from", "value")
    turns = history_of(fields.get("history")) + turns
    if turns and turns[0]["role"] == "system" and not _VISIBLE.search(turns[0]["content"]):
        turns = turns[1:]  # an empty one counts as none
    if system := _optional(fields, "system"):
        if turns and turns[0]["role"] == "system":
            raise RejectedError("two_system_turns", "a system turn beside the column system")
        turns.insert(0, _turn("system", system))
    turns = _checked(turns)
    if tools := tools_of(fields.get("tools")):
        turns[0]["tools"] = tools
    if documents := documents_of(fields.get("documents")):
        turns[0]["documents"] = documents
    return _encodable(turns)


def is_document(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a row is a document, not a conversation."""
    return bool(messages[0]["role"] == DOCUMENT)


def stored(messages: Messages) -> list[dict[str, Any]]:
    """Messages as a table of cleaned rows holds them: fields besides the text as JSON."""
    return [
        {
            "role": m["role"],
            "content": m["content"],
            "fields": json.dumps(rest, ensure_ascii=False) if (rest := _besides(m)) else None,
        }
        for m in messages
    ]


def loaded(messages: Sequence[Mapping[str, Any]]) -> Messages:
    """The messages that :func:`stored` was given; others come out as they are."""
    return [
        {k: v for k, v in m.items() if k != "fields"} | json.loads(m.get("fields") or "{}")
        if "fields" in m
        else dict(m)
        for m in messages
    ]


def besides_text(messages: Messages) -> str:
    """All fields of a conversation besides roles and texts, as one text; empty for most rows."""
    fields = [_besides(m) for m in messages]
    return json.dumps(fields, ensure_ascii=False, sort_keys=True) if any(fields) else ""


def _besides(message: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in message.items() if k not in ("role", "content")}


def _turn(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def _text(fields: Mapping[str, Any], name: str) -> str:
    return text_of(fields[name], name)


def _optional(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    text = text_of(value, name)
    return text if _VISIBLE.search(text) else ""


def _turns(value: Any, name: str, role_key: str, text_key: str) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise RejectedError("wrong_type", f"{name} is {kind_of(value)}, not a list")
    turns = []
    for number, turn in enumerate(value, start=1):
        if not isinstance(turn, Mapping) or not isinstance(turn.get(role_key), str):
            raise RejectedError("wrong_type", f"turn {number} of {name} has no {role_key!r}")
        turns.append(_read_turn(turn, turn[role_key], text_key, f"turn {number}"))
    return turns


def _read_turn(turn: Mapping[str, Any], given: str, text_key: str, where: str) -> dict[str, Any]:
    """One turn with all its fields; ``given``: its role as the file names it."""
    name = given.strip().lower()
    text = turn.get(text_key)
    if name in CALLING:
        calls = calls_of(text, where)
        return {**_turn("assistant", ""), **turn_fields(turn, "assistant", where)} | {
            "tool_calls": calls
        }
    role = ROLES.get(name)
    if role is None:
        known = ", ".join(ROLES)
        raise RejectedError("unknown_role", f"{where} has the role {given!r}; known are {known}")
    fields = turn_fields(turn, role, where)
    # Beside a call, and for a system turn that says nothing, there may be no text.
    silent = text is None and (role == "system" or "tool_calls" in fields)
    content = "" if silent else content_of(text, f"{text_key} of {where}")
    return {**_turn(role, content), **fields}


def _checked(turns: list[dict[str, Any]]) -> Messages:
    """The turns, in an order that can be trained on. Raises RejectedError for another one."""
    talk = turns[1:] if turns and turns[0]["role"] == "system" else turns
    roles = [turn["role"] for turn in talk]
    if "assistant" not in roles:
        raise RejectedError("no_assistant_turn", f"{len(turns)} turns, none of an assistant")
    if roles[0] == "assistant" and roles[-1] == "user":
        raise RejectedError("roles_inverted", "begins with the assistant and ends with the user")
    expected: tuple[str, ...] = ("user",)
    for turn in talk:
        if turn["role"] not in expected:
            raise RejectedError("roles_do_not_alternate", " ".join(roles[:8]))
        expected = _next(turn)
    if roles[-1] != "assistant":
        raise RejectedError("ends_with_user", f"the last turn, of the {roles[-1]}, has no answer")
    if not any(t["role"] == "assistant" and t.get("train", True) for t in talk):
        raise RejectedError("no_trained_turn", "every answer is left out of training")
    for turn in turns:
        role = turn["role"]
        if role != "tool" and "tool_calls" not in turn and not _VISIBLE.search(turn["content"]):
            kind = "empty_output" if role == "assistant" else "empty_prompt"
            raise RejectedError(kind, f"a turn of the {role} is empty")
    return turns


def _next(turn: Mapping[str, Any]) -> tuple[str, ...]:
    """The roles that may follow a turn: a tool answers each call before the assistant goes on."""
    if turn["role"] == "assistant":
        return ("tool",) if "tool_calls" in turn else ("user",)
    return ("tool", "assistant") if turn["role"] == "tool" else ("assistant",)


def _encodable(turns: Messages) -> Messages:
    for turn in turns:
        text, role = turn["content"] + besides_text([turn]), turn["role"]
        said = "the document" if role == DOCUMENT else f"a turn of the {role}"
        if not text.isascii() and (found := _SURROGATE.search(text)):
            if _ESCAPED_BYTE.match(found.group()):
                raise RejectedError("not_utf8", f"an undecodable byte in {said}")
            raise RejectedError("lone_surrogate", f"a lone surrogate (half a character) in {said}")
    return turns
