"""What every reader yields: a row, or the reason why there is none at this place."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One row as the file holds it."""

    where: str
    values: dict[str, Any]


@dataclass(frozen=True)
class RejectedRow:
    """A row that can't be used."""

    where: str
    reason: str
    detail: str
