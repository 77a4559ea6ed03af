"""Rendered texts and the places of answers in them."""

from dataclasses import dataclass, field

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


def without_blanks(prompt: str) -> str:
    """A prompt up to where the answer's first token may begin.

    Most words take a blank before them into their first token; digits and signs leave it as one of
    its own, which the model has to write too.
    """
    return prompt.rstrip(" ")
