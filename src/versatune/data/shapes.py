"""Which shape rows have, and the other spellings of it that people's files hold.

:func:`detect_shape` finds a source's shape by the columns of its first row;
:func:`settle` brings a row into the one spelling that ``conversations`` checks.
"""

import ast
import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from versatune.data.config import FIELDS, Shape
from versatune.data.conversations import OPTIONAL, ROLES
from versatune.data.fields import (
    CALLS,
    RejectedError,
    history_of,
    is_empty,
    unknown_turn_keys,
)
from versatune.errors import VersatuneError

SPELLINGS = {"role": ("role", "from"), "content": ("content", "value")}
"""Keys of a turn: OpenAI's, then ShareGPT's."""

OTHER_NAMES = {
    "instruction": ("question", "query", "prompt", "input", "task"),
    "output": ("answer", "response", "completion", "target", "chosen"),
    "prompt": ("question", "query", "instruction", "input", "problem"),
    "completion": ("answer", "response", "output", "target", "solution", "chosen"),
    "messages": ("conversation", "dialogue", "dialog", "chat", "turns", "chosen"),
    "conversations": ("conversation", "dialogue", "dialog", "chat", "turns"),
    "text": ("content", "document", "body", "article", "passage", "raw_content"),
}
"""What other data sets call the necessary fields; for advice, nothing is taken from them."""

_LISTS: tuple[Shape, ...] = ("messages", "sharegpt")


def fits(columns: Mapping[str, Any], mapping: Mapping[str, str]) -> list[Shape]:
    """The shapes whose necessary fields are all there after the column map.

    A shape without a field that ``mapping`` names is not meant. ``text`` fits only where nothing
    else does: conversations often stand beside their rendered text.
    """
    found = [
        shape
        for shape, fields in FIELDS.items()
        if set(mapping) <= set(fields)
        and all(mapping.get(f, f) in columns for f in fields if f not in OPTIONAL)
    ]
    return [shape for shape in found if shape != "text"] or found


def detect_shape(values: Mapping[str, Any], mapping: Mapping[str, str], where: str) -> Shape:
    """The shape of a row, by its columns after the column map.

    Raises VersatuneError when no shape fits, or several.
    """
    found = fits(values, mapping)
    if len(found) > 1:
        full = [s for s in found if all(values[mapping.get(f, f)] is not None for f in needed(s))]
        found = full or found
    if len(found) == 1:
        return found[0]
    if found:
        raise VersatuneError(
            f"{where}: the columns {', '.join(sorted(values))} fit several shapes "
            f"({', '.join(found)}). Set the source's `shape` to the one that is meant."
        )
    raise unknown_shape(values, mapping, where)


def unknown_shape(
    values: Mapping[str, Any], mapping: Mapping[str, str], where: str, shape: Shape | None = None
) -> VersatuneError:
    """What to say of columns that fit no shape, or not the ``shape`` that was asked for."""
    there = ", ".join(sorted(values)) or "none"
    wanted = {s: FIELDS[s] for s in ([shape] if shape else FIELDS)}
    missing = {field: c for field, c in mapping.items() if c not in values}
    start = f"{where}: the columns {there} {'do not fit the' if shape else 'fit no known'} shape"
    if missing:
        wrong = ", ".join(f"{field}: {c}{nearest(c, values)}" for field, c in missing.items())
        return VersatuneError(
            f"{start}: `columns` names columns that do not exist ({wrong}). Fix the name in the "
            "source's `columns`."
        )
    fields = "; ".join(f"{s}: {', '.join(f)}" for s, f in wanted.items())
    return VersatuneError(f"{start} ({fields}). {_advice(values, mapping, list(wanted))}")


def needed(shape: Shape) -> list[str]:
    """The fields that a row of this shape must have."""
    return [field for field in FIELDS[shape] if field not in OPTIONAL]


def nearest(name: str, columns: Mapping[str, Any]) -> str:
    """``, nearest 'x'`` where a column is called much like ``name``."""
    close = difflib.get_close_matches(name, list(columns), n=1)
    return f", nearest {close[0]!r}" if close else ""


def settle(
    values: Mapping[str, Any], shape: Shape, mapping: Mapping[str, str]
) -> tuple[dict[str, Any], Shape]:
    """A row with the names and spellings of its shape, and the shape itself.

    Columns are renamed by ``mapping``; lists of turns that are written as text are parsed; turns
    get the keys of their shape; a prompt and completion of turns become ``messages``. A column that
    the map gives to one field is not read as another, though it be called so. Raises
    RejectedError when a column of the map is missing.
    """
    for field in needed(shape):
        if (column := mapping.get(field, field)) not in values:
            taken = "" if field == column else f" (`columns` takes {field} from it)"
            raise RejectedError("missing_column", f"no {column!r}{taken}")
    if mapping:
        taken_columns = set(mapping.values())
        renamed = {c: v for c, v in values.items() if c not in taken_columns}
        renamed |= {f: values[c] for f, c in mapping.items() if c in values}
        for field in needed(shape):
            if field not in renamed:
                raise RejectedError("missing_column", f"`columns` takes {field!r} for two fields")
        values = renamed
    settled = dict(values)
    if shape in _LISTS:
        name = FIELDS[shape][0]
        settled[name] = _turns(settled[name], spelling=_LISTS.index(shape))
    elif shape == "prompt_completion":
        parts = _parts({f: settled[f] for f in ("prompt", "completion")})
        if any(isinstance(part, list) for part in parts.values()):
            return _joined(settled, parts), "messages"
    return settled, shape


def ignored_columns(
    values: Mapping[str, Any], shape: Shape, mapping: Mapping[str, str]
) -> set[str]:
    """The columns of a row, as the file has it, that nothing uses; empty ones don't count."""
    used = {mapping.get(field, field) for field in FIELDS[shape]}
    found = {str(k) for k, v in values.items() if k not in used and not is_empty(v)}
    return {column or "(no name)" for column in found}


def ignored_keys(settled: Mapping[str, Any], settled_shape: Shape, shape: Shape) -> set[str]:
    """Keys of turns that nothing uses, as ``messages[].key``, of what :func:`settle` gave.

    ``shape``: the one that was settled, by whose fields the keys are called.
    """
    if settled_shape not in _LISTS:
        return set()
    keys = tuple(own[_LISTS.index(settled_shape)] for own in SPELLINGS.values())
    turns = settled[FIELDS[settled_shape][0]]
    found: set[str] = set()
    for turn in turns if isinstance(turns, list) else ():
        if isinstance(turn, Mapping) and len(turn) > len(keys):
            role = ROLES.get(str(turn.get(keys[0])).strip().lower())
            found |= unknown_turn_keys(turn, keys, role)
    return {f"{'/'.join(needed(shape))}[].{key}" for key in found}


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


def row_shape(values: Mapping[str, Any], shape: Shape, mapping: Mapping[str, str]) -> Shape:
    """The shape of one row in a source whose first row had ``shape``.

    Another one where this row lacks what that needs and has all that exactly one other needs. A
    broken conversation is never taken for a document.
    """
    if not _lacks(values, shape, mapping):
        return shape
    found = [s for s in fits(values, mapping) if s != "text" and not _lacks(values, s, mapping)]
    return found[0] if len(found) == 1 else shape


def _lacks(values: Mapping[str, Any], shape: Shape, mapping: Mapping[str, str]) -> bool:
    return any(values.get(mapping.get(field, field)) is None for field in needed(shape))


def _turns(value: Any, spelling: int) -> Any:
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


def _parts(given: dict[str, Any]) -> dict[str, Any]:
    """Prompt and completion with what is turns as turns.

    A text may be JSON for its own sake, so texts are turns only when both of them are.
    """
    read = {field: _turns(part, spelling=0) for field, part in given.items()}
    if all(isinstance(part, str) for part in given.values()):
        return read if all(isinstance(part, list) for part in read.values()) else given
    return {f: part if isinstance(part, str) else read[f] for f, part in given.items()}


def _joined(values: dict[str, Any], parts: Mapping[str, Any]) -> dict[str, Any]:
    """A row of ``messages`` from a prompt and a completion of which one at least is turns."""
    turns: list[Any] = []
    for field, role in (("prompt", "user"), ("completion", "assistant")):
        part = parts[field]
        if not isinstance(part, list | str):
            raise RejectedError("wrong_type", f"{field} is neither text nor a list of turns")
        turns += [{"role": role, "content": part}] if isinstance(part, str) else part
    begun = bool(turns) and is_turn(turns[0]) and ROLES.get(str(turns[0].get("role"))) == "system"
    turns[begun:begun] = history_of(values.get("history"))
    rest = {k: v for k, v in values.items() if k not in ("prompt", "completion", "history")}
    return {**rest, "messages": turns}


def _advice(values: Mapping[str, Any], mapping: Mapping[str, str], shapes: Sequence[Shape]) -> str:
    """Which `columns` would make one of these shapes of what is there: the likeliest one."""
    for others in (False, True):
        for shape in shapes:
            absent = [f for f in needed(shape) if mapping.get(f, f) not in values]
            found = {field: _likely(field, values, others=others) for field in absent}
            columns = {**mapping, **{f: c for f, c in found.items() if c}}
            apart = len(set(columns.values())) == len(columns)
            # Of the shape that the map leads to, with what it leaves out.
            if all(found.values()) and apart and set(columns) <= set(FIELDS[shape]):
                written = ", ".join(f"{field}: {column}" for field, column in columns.items())
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
    lower = {column.lower().strip(): column for column in values}
    for name in (field, *(OTHER_NAMES.get(field, ()) if others else ())):
        if name in lower:
            return lower[name]
    close = difflib.get_close_matches(field, list(values), n=1, cutoff=0.75)
    return close[0] if close else None
