"""Lists of turns in the spellings that people's files hold, also written as text or by column."""

import ast
import json
from collections.abc import Mapping
from typing import Any

from versatune.data.fields import CALLS

SPELLINGS = {"role": ("role", "from"), "content": ("content", "value")}
"""Keys of a turn: OpenAI's, then ShareGPT's."""


def is_turn(value: Any) -> bool:
    """Whether a value is one turn of a conversation, in any spelling; a call needs no text."""
    return (
        isinstance(value, Mapping)
        and any(key in value for key in SPELLINGS["role"])
        and any(key in value for key in (*SPELLINGS["content"], *CALLS))
    )


def conversation_row(value: Any) -> dict[str, Any] | None:
    """The row that a bare list of turns is; None for anything else."""
    if not isinstance(value, list) or not value or not all(map(is_turn, value)):
        return None
    return {"messages" if "role" in value[0] else "conversations": value}


def turns_of(value: Any, spelling: int) -> Any:
    """Turns in the keys of one spelling; anything else is left as it is."""
    if isinstance(value, str):
        value = _parsed(value)
    if isinstance(value, Mapping) and is_turn(value):
        # a list of structs that was stored by column
        cells = [cell for cell in value.values() if isinstance(cell, list)]
        if len(cells) == len(value) and len({len(cell) for cell in cells}) == 1:
            value = [dict(zip(value, row, strict=True)) for row in zip(*cells, strict=True)]
    if not isinstance(value, list) or not any(map(is_turn, value)):
        return value
    return [_respelled(turn, spelling) if isinstance(turn, Mapping) else turn for turn in value]


def _respelled(turn: Mapping[str, Any], spelling: int) -> dict[str, Any]:
    result = dict(turn)
    for keys in SPELLINGS.values():
        own, other = keys[spelling], keys[1 - spelling]
        if result.get(own) is None and result.get(other) is not None:
            result[own] = result.pop(other)
    return result


def _parsed(text: str) -> Any:
    """The list in a text, as JSON or as Python prints it; the text itself when there is none."""
    if not text.lstrip().startswith(("[", "{")) or not ("role" in text or "from" in text):
        return text
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text.strip())
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
        turns = value if isinstance(value, list) else [value]
        return value if turns and all(map(is_turn, turns)) else text
    return text
