"""What a turn may hold besides its text: tools, thoughts, whether it is trained on, who speaks.

Datasets name these things differently. Here they get the names that chat templates know, or the
row is rejected with a reason. Whether a template shows them is checked where it is applied
(``shown``).
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any


class RejectedError(Exception):
    """A row that can't be used: ``reason`` is counted, ``detail`` is for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


THOUGHTS = ("reasoning_content", "thinking", "reasoning")
"""Names of a thought, in the order in which transformers prefers them."""
TRAINED = ("weight", "train", "training", "trainable", "loss", "loss_mask", "loss_weight")
"""Flags that are true (1) for an answer to train on."""
UNTRAINED = ("masked",)
"""Flags that are true for an answer to leave out of the loss."""
PARTLY = ("train_detail",)
"""The key that trains on only some characters of a turn. Such rows are rejected."""
CALLS = ("tool_calls", "function_call")
TURN_FIELDS = (*THOUGHTS, *TRAINED, *UNTRAINED, *PARTLY, *CALLS, "tool_call_id", "name")
"""Every key of a turn that is used, besides its role and its text."""

MEDIA = ("image", "images", "video", "videos", "audio", "audios")
"""Columns and keys of turns that hold images, sound or video."""

_TEXT_PARTS = (None, "text", "input_text", "output_text")


def text_of(value: Any, name: str) -> str:
    """The text of a field. Raises RejectedError for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and math.isnan(value):
        raise RejectedError("nan", f"{name} is NaN")
    raise RejectedError("wrong_type", f"{name} is {kind_of(value)}, not text")


def content_of(value: Any, name: str) -> str:
    """The text of a turn; a list of parts, as OpenAI has it, is joined when all are text."""
    if not isinstance(value, list):
        return text_of(value, name)
    for part in value:
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        if kind not in _TEXT_PARTS or not isinstance(part.get("text"), str):
            raise RejectedError("wrong_type", f"{name} has a part of type {kind!r}, not text")
    return "".join(part["text"] for part in value)


def kind_of(value: Any) -> str:
    """A value's type as JSON calls it, for a message."""
    return "missing" if value is None else _KINDS.get(type(value), type(value).__name__)


_KINDS = {
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


def is_empty(value: Any) -> bool:
    """Whether a field is empty: null, NaN, or without text."""
    return (
        value is None or value in ("", [], {}) or (isinstance(value, float) and math.isnan(value))
    )


def turn_fields(turn: Mapping[str, Any], role: str, where: str) -> dict[str, Any]:
    """What a turn holds besides role and text, under the names of chat templates.

    Keys: ``reasoning_content``, ``tool_calls``, ``tool_call_id``, ``name``, and ``train`` (only
    where it is False). Raises RejectedError for what can't be used.
    """
    for key in MEDIA:
        if not is_empty(turn.get(key)):
            raise RejectedError("wrong_type", f"{where} has {key}, not only text")
    found: dict[str, Any] = {}
    if role == "assistant":
        thought = next((turn[k] for k in THOUGHTS if not is_empty(turn.get(k))), None)
        if thought is not None:
            found["reasoning_content"] = content_of(thought, f"the thought of {where}")
        given = turn.get("tool_calls")
        if is_empty(given) and not is_empty(turn.get("function_call")):
            given = [turn["function_call"]]
        if not is_empty(given) and (calls := calls_of(given, where)):
            found["tool_calls"] = calls
        if not _is_trained(turn, where):
            found["train"] = False
    for key in ("name", "tool_call_id"):
        value = turn.get(key)
        # Some write the role into the name again: that is no speaker.
        if not is_empty(value) and (key != "name" or value != turn.get("role")):
            found[key] = text_of(value, f"{key} of {where}")
    return found


def _is_trained(turn: Mapping[str, Any], where: str) -> bool:
    trained = True
    for key in (*TRAINED, *UNTRAINED, *PARTLY):
        value = turn.get(key)
        if is_empty(value):
            continue
        if key in PARTLY or value not in (0, 1):
            detail = f"{key} of {where} is {value!r}: a turn is trained on (1) or not (0)"
            raise RejectedError("partly_trained_turn", detail)
        trained &= bool(value) != (key in UNTRAINED)
    return trained


def calls_of(given: Any, where: str) -> list[dict[str, Any]]:
    """Calls of tools as templates know them: ``arguments`` a dict, not its JSON text.

    Raises RejectedError for a call without a name, or whose arguments are no JSON object.
    """
    given = _parsed(given, f"tool_calls of {where}", "bad_tool_call")
    calls = []
    for call in given if isinstance(given, list) else [given]:
        inner = call.get("function", call) if isinstance(call, Mapping) else None
        name = inner.get("name") if isinstance(inner, Mapping) else None
        if not isinstance(call, Mapping) or not isinstance(inner, Mapping) or not name:
            raise RejectedError("bad_tool_call", f"a tool call of {where} has no name")
        arguments = inner.get("arguments")
        if is_empty(arguments):
            arguments = {}
        elif isinstance(arguments, str):
            arguments = _parsed(arguments, f"arguments of {where}", "bad_tool_call")
        else:
            arguments = _without_nulls(arguments)
        if not isinstance(arguments, dict):
            raise RejectedError("bad_tool_call", f"the arguments of {where} are no JSON object")
        identity = {} if is_empty(call.get("id")) else {"id": str(call["id"])}
        function = {"name": str(name), "arguments": arguments}
        calls.append({"type": "function", **identity, "function": function})
    return calls


def tools_of(given: Any) -> list[dict[str, Any]]:
    """The tools of a row, as JSON schemas in OpenAI's form; a list or its JSON text.

    Raises RejectedError when they are no list of objects with names.
    """
    if is_empty(given) or (given := _parsed(given, "tools", "bad_tools")) is None:
        return []
    if not isinstance(given, list):
        raise RejectedError("bad_tools", f"tools is {kind_of(given)}, not a list")
    tools = []
    for number, tool in enumerate(given, start=1):
        tool = _parsed(tool, f"tool {number}", "bad_tools")
        inner = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(inner, Mapping) or not inner.get("name"):
            raise RejectedError("bad_tools", f"tool {number} has no name")
        tools.append({"type": "function", "function": _without_nulls(inner)})
    return tools


def documents_of(given: Any) -> list[dict[str, Any]]:
    """The documents of a row, for templates that show some.

    Raises RejectedError when they are not a list of objects.
    """
    if is_empty(given):
        return []
    if not isinstance(given, list) or not all(isinstance(entry, Mapping) for entry in given):
        raise RejectedError("wrong_type", "documents is not a list of objects with title and text")
    return [_without_nulls(entry) for entry in given]


def history_of(given: Any) -> list[dict[str, Any]]:
    """Alpaca's earlier turns, ``[[user, assistant], ...]``, as messages."""
    if is_empty(given):
        return []
    given = _parsed(given, "history", "wrong_type")
    if not isinstance(given, list) or any(
        not isinstance(pair, list | tuple) or len(pair) != 2 for pair in given
    ):
        raise RejectedError("wrong_type", "history is not a list of [user, assistant] pairs")
    return [
        {"role": role, "content": text_of(text, f"history {number}")}
        for number, pair in enumerate(given, start=1)
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


def unknown_turn_keys(turn: Mapping[str, Any], known: Iterable[str], role: str | None) -> set[str]:
    """Keys of a turn that have a value and are not used.

    So are thoughts, calls and flags of another turn than an answer, and of several thoughts, or
    names of calls, that differ, all but the first.
    """
    used = {*known, *TURN_FIELDS}
    found = {str(k) for k, v in turn.items() if k not in used and not is_empty(v)}
    if role not in (None, "assistant"):
        found |= {key for key in TRAINED if turn.get(key) == 1}
        found |= {key for key in (*THOUGHTS, *CALLS, *PARTLY) if not is_empty(turn.get(key))}
        return found
    for names in (THOUGHTS, CALLS):
        first, *rest = [key for key in names if not is_empty(turn.get(key))] or [""]
        found |= {key for key in rest if turn[key] != turn[first]}
    return found


def _parsed(value: Any, name: str, reason: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise RejectedError(reason, f"{name} is text that is not JSON") from None


def _without_nulls(value: Any) -> Any:
    """Without keys whose value is null: Arrow gives every object the keys of all of them."""
    if isinstance(value, Mapping):
        return {str(k): _without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_nulls(entry) for entry in value]
    return value
