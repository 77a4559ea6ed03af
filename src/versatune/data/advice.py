"""Advice for columns that fit no shape: the ``columns`` setting that would make one fit."""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from versatune.data.config import FIELDS, Shape
from versatune.data.conversations import OPTIONAL, ROLES
from versatune.data.fields import is_empty
from versatune.data.turn_lists import conversation_row, turns_of

OPTIONAL_NAMES = {
    "input": ("context", "passage"),
    "system": ("system_prompt", "system_message"),
    "tools": ("functions",),
}
"""The same for optional fields."""

OTHER_NAMES = {
    "instruction": ("question", "query", "prompt", "input", "task"),
    "output": ("answer", "response", "completion", "target", "chosen"),
    "prompt": ("question", "query", "instruction", "input", "problem"),
    "completion": ("answer", "response", "output", "target", "solution", "chosen"),
    "messages": ("conversation", "dialogue", "dialog", "chat", "turns", "chosen"),
    "conversations": ("conversation", "dialogue", "dialog", "chat", "turns"),
    "text": ("content", "document", "body", "article", "passage", "raw_content"),
}
"""Other data sets' names of the required fields, used only for advice."""


_CHOICES = {"choices", "options", "endings", "answerKey"}
"""Columns of multiple-choice questions."""


def needed(shape: Shape) -> list[str]:
    """The fields that a row of this shape must have."""
    return [field for field in FIELDS[shape] if field not in OPTIONAL]


def nearest(name: str, columns: Mapping[str, Any]) -> str:
    """``, nearest 'x'`` where a column is called much like ``name``."""
    close = difflib.get_close_matches(name, list(columns), n=1)
    return f", nearest {close[0]!r}" if close else ""


def field_of(column: str) -> str | None:
    """The field that a column may hold under another name, so that it need not be ignored."""
    return next((f for f, names in OPTIONAL_NAMES.items() if column in names), None)


def advice(values: Mapping[str, Any], mapping: Mapping[str, str], shapes: Sequence[Shape]) -> str:
    """The `columns` setting that most likely turns these columns into one of the shapes."""
    if not _CHOICES.isdisjoint(values):
        return (
            "Questions with choices belong to a domain's `evaluation` (question, choices, answer), "
            "not to its `sources`. To train on them, write each as instruction and output."
        )
    for others in (False, True):
        for shape in shapes:
            absent = [f for f in needed(shape) if mapping.get(f, f) not in values]
            found = {field: _likely(field, values, others=others) for field in absent}
            columns = {**mapping, **{f: c for f, c in found.items() if c}}
            apart = len(set(columns.values())) == len(columns)
            # Of the shape that the map leads to, with what it leaves out.
            if all(found.values()) and apart and set(columns) <= set(FIELDS[shape]):
                columns |= _optional(values, shape, columns)
                written = ", ".join(f"{field}: {_yaml(c)}" for field, c in columns.items())
                return f"Set the source's `columns`, perhaps {{{written}}} (that makes it {shape})."
    for shape in shapes if mapping else ():
        if set(mapping) <= set(FIELDS[shape]):
            absent = [f for f in needed(shape) if mapping.get(f, f) not in values]
            free = sorted(set(values) - set(mapping.values()))
            return (
                f"For the shape {shape} `columns` must also say which column is "
                f"{' and which is '.join(absent)} (left are {', '.join(free) or 'none'})."
            )
    return (
        "Set the source's `columns`, for example {prompt: question, completion: answer}; or its "
        "`shape` or `format`, if the file is read wrongly."
    )


def _likely(field: str, values: Mapping[str, Any], *, others: bool) -> str | None:
    """The column that most likely holds a field; ``others``: under other names too."""
    values = {column: value for column, value in values.items() if _may_be(field, value)}
    lower = {column.lower().strip(): column for column in values}
    for name in (field, *(OTHER_NAMES.get(field, ()) if others else ())):
        if name in lower:
            return lower[name]
    close = difflib.get_close_matches(field, list(values), n=1, cutoff=0.75)
    return close[0] if close else None


def _may_be(field: str, value: Any) -> bool:
    """Whether a value can be what a field holds; an empty one can."""
    if is_empty(value):
        return True
    turns = turns_of(value, spelling=0)
    if field in ("messages", "conversations"):
        return conversation_row(turns) is not None
    if isinstance(value, str):
        return True
    if conversation_row(turns) is None:
        return False
    begins = ROLES.get(str(turns[0].get("role")).lower())
    return field == "prompt" or (field == "completion" and begins == "assistant")


def _optional(values: Mapping[str, Any], shape: Shape, taken: Mapping[str, str]) -> dict[str, str]:
    """Fields that may be missing, and the columns that most likely hold them."""
    return {
        field: column
        for field, names in OPTIONAL_NAMES.items()
        if field in FIELDS[shape] and field not in values and field not in taken
        for column in names
        if not is_empty(values.get(column))
    }


def _yaml(column: str) -> str:
    """A column's name as YAML reads it back."""
    plain = re.fullmatch(r"[A-Za-z_][\w-]*( [\w-]+)*", column, re.ASCII)
    said = column.lower() in ("yes", "no", "on", "off", "true", "false", "null", "y", "n")
    return column if plain and not said else json.dumps(column, ensure_ascii=False)
