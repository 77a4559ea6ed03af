"""Rendered texts and the places of answers in them."""

from dataclasses import dataclass, field


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
