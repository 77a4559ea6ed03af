"""The shape of rows, and the variants of it that are accepted.

:func:`detect_shape` finds a source's shape by the columns of its first row;
:func:`settle` brings a row into the one spelling that ``conversations`` checks.
"""

import math
from collections.abc import Mapping
from typing import Any

from versatune.data.advice import advice, nearest, needed
from versatune.data.config import FIELDS, Shape
from versatune.data.conversations import OPTIONAL, ROLES
from versatune.data.fields import (
    MEDIA,
    RejectedError,
    history_of,
    is_empty,
    unknown_turn_keys,
)
from versatune.data.turn_lists import SPELLINGS, is_turn, turns_of
from versatune.errors import VersatuneError

_OF_TURNS = {"role", "from", "speaker", "parent_id"}
"""Columns of rows that are single turns, as in OASST."""

_LISTS: tuple[Shape, ...] = ("messages", "sharegpt")


def fits(columns: Mapping[str, Any], mapping: Mapping[str, str]) -> list[Shape]:
    """The shapes whose necessary fields are all there after the column map.

    A shape must have every field that ``mapping`` names. ``text`` fits only where nothing else
    does: conversations often stand beside their rendered text.
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
    if found == ["text"] and (roles := sorted(_OF_TURNS & set(values))):
        raise VersatuneError(
            f"{where}: a row has {' and '.join(roles)}, so it holds one turn of a conversation and "
            "not the whole: join the turns to `messages` first. If each text stands alone, set the "
            "source's `shape` to text."
        )
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
    """The error for columns that fit no shape, or not the ``shape`` that was asked for."""
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
    return VersatuneError(f"{start} ({fields}). {advice(values, mapping, list(wanted))}")


def settle(
    values: Mapping[str, Any], shape: Shape, mapping: Mapping[str, str]
) -> tuple[dict[str, Any], Shape]:
    """A row with the names and spellings of its shape, and the shape itself.

    Columns are renamed by ``mapping``; lists of turns that are written as text are parsed; turns
    get the keys of their shape; a prompt and completion of turns become ``messages``. Numbers that
    stand for a text stay: see :func:`numbers_as_text`. A column that the map gives to one field is
    not read as another, though it be called so. Raises RejectedError when a column of the map is
    missing.
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
    _refuse_unusable(values, shape)
    settled = dict(values)
    if shape in _LISTS:
        name = FIELDS[shape][0]
        settled[name] = turns_of(settled[name], spelling=_LISTS.index(shape))
    elif shape == "prompt_completion":
        parts = _parts({f: settled[f] for f in ("prompt", "completion")})
        if any(isinstance(part, list) for part in parts.values()):
            return _joined(settled, parts), "messages"
    return settled, shape


def _refuse_unusable(values: Mapping[str, Any], shape: Shape) -> None:
    """Raise RejectedError where a column says that the conversation can't be trained on alone."""
    if shape == "text":
        return
    for column in MEDIA:
        if is_empty(values.get(column)):
            continue
        if column.endswith("s") or f"<{column}>" in str(values):
            raise RejectedError("wrong_type", f"the column {column} does not hold text")
    if shape == "prompt_completion" and values.get("label") is False:
        detail = "label is false: the completion is an unwanted one (KTO data)"
        raise RejectedError("unwanted_answer", detail)


def ignored_columns(
    values: Mapping[str, Any], shape: Shape, mapping: Mapping[str, str]
) -> set[str]:
    """The columns of a row, as the file has it, that nothing uses; empty ones don't count."""
    used = {mapping.get(field, field) for field in FIELDS[shape]}
    if shape == "prompt_completion" and isinstance(values.get("label"), bool):
        used.add("label")
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


def numbers_as_text(settled: dict[str, Any], shape: Shape) -> set[str]:
    """Write the numbers of a settled row that stand where a text belongs as texts, in place.

    Returns the fields that held one. Truth values stay, for files mean yes, True or 1 by them; so
    does NaN, which is a missing one.
    """
    if shape not in _LISTS:
        texts = [f for f in FIELDS[shape] if f in ("system", "input", *needed(shape))]
        found = {field for field in texts if _is_number(settled.get(field))}
        settled.update({field: str(settled[field]) for field in found})
        return found
    name, content = FIELDS[shape][0], SPELLINGS["content"][_LISTS.index(shape)]
    turns = settled[name] if isinstance(settled[name], list) else []
    numbers = [t for t in turns if isinstance(t, dict) and _is_number(t.get(content))]
    for turn in numbers:
        turn[content] = str(turn[content])
    return {f"{name}[].{content}"} if numbers else set()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


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


def _parts(given: dict[str, Any]) -> dict[str, Any]:
    """Prompt and completion, with lists of turns parsed.

    A text may be JSON for its own sake, so texts are turns only when both of them are.
    """
    read = {field: turns_of(part, spelling=0) for field, part in given.items()}
    if all(isinstance(part, str) for part in given.values()):
        return read if all(isinstance(part, list) for part in read.values()) else given
    return {f: part if isinstance(part, str) else read[f] for f, part in given.items()}


def _joined(values: dict[str, Any], parts: Mapping[str, Any]) -> dict[str, Any]:
    """A row of ``messages`` from a prompt and a completion of which one at least is turns."""
    turns: list[Any] = []
    for field, role in (("prompt", "user"), ("completion", "assistant")):
        part = parts[field]
        if not isinstance(part, str) and not (isinstance(part, list) and any(map(is_turn, part))):
            raise RejectedError("wrong_type", f"{field} is neither text nor a list of turns")
        turns += [{"role": role, "content": part}] if isinstance(part, str) else part
    begun = bool(turns) and is_turn(turns[0]) and ROLES.get(str(turns[0].get("role"))) == "system"
    turns[begun:begun] = history_of(values.get("history"))
    rest = {k: v for k, v in values.items() if k not in ("prompt", "completion", "history")}
    return {**rest, "messages": turns}
