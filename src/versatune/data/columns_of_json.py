"""Rows of a JSON object that holds a column in each member, as pandas writes it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from versatune.data.rows import RejectedRow, Row
from versatune.data.shapes import fits
from versatune.data.turn_lists import is_turn
from versatune.errors import VersatuneError


def by_column(
    path: Path, values: Mapping[str, Any], columns: Mapping[str, str]
) -> list[Row | RejectedRow]:
    """The rows of an object that holds a column in each member, or a row; none else."""
    cells = list(values.values())
    if not fits(values, columns):
        named = all(isinstance(cell, dict) and fits(cell, columns) for cell in cells)
        return [Row(f"{path}:{n}", cell) for n, cell in enumerate(cells, 1)] if named else []
    cells = _columns(cells)
    if not cells:
        return []
    lengths = {name: len(cell) for name, cell in zip(values, cells, strict=True)}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise VersatuneError(f"{path}: its columns differ in length ({told}).")
    return [
        Row(f"{path}:{number}", dict(zip(values, row, strict=True)))
        for number, row in enumerate(zip(*cells, strict=True), start=1)
    ]


def is_by_column(value: Any, columns: Mapping[str, str]) -> bool:
    """Whether a JSON value is an object that holds a column in each member."""
    rows = isinstance(value, dict) and fits(value, columns)
    return bool(rows) and bool(_columns(list(value.values())))


def _columns(cells: list[Any]) -> list[list[Any]]:
    """The members' values as lists; none where they are no columns but, say, a row's turns."""
    if all(isinstance(c, dict) and c.keys() == cells[0].keys() for c in cells):
        cells = [list(c.values()) for c in cells]
    if not all(isinstance(c, list) for c in cells) or any(is_turn(v) for c in cells for v in c):
        return []
    return cells
