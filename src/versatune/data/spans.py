"""Rendered texts and the places of answers in them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Places = list[tuple[int, int]]
"""(first, end) token positions of the answers of a row."""


@dataclass(frozen=True)
class Span:
    """Where one answer stands in a rendered text, in characters."""

    start: int
    stop: int
    """The end of what is said."""
    end: int
    """The end of the token that ends the turn."""


@dataclass
class Rendered:
    """A text with the answers in it that are supervised."""

    text: str
    spans: list[Span] = field(default_factory=list)


def joined(text: str, places: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Places that a template marks, of one answer in pieces as one: only blanks are between."""
    found: list[tuple[int, int]] = []
    for start, end in places:
        if found and not text[found[-1][1] : start].strip():
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def n_common(a: Sequence[Any], b: Sequence[Any]) -> int:
    """How many characters two texts, or tokens two rows, begin with alike."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((n for n, (x, y) in pairs if x != y), min(len(a), len(b)))


def without_blanks(prompt: str) -> str:
    """A prompt up to where the answer's first token may begin.

    Most words take a blank before them into their first token; digits and signs leave it as one of
    its own, which the model has to write too.
    """
    return prompt.rstrip(" ")
