"""Bookkeeping: every row that is read is found again in the report, kept or with a reason."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

EXAMPLES = 5
"""How many rows the report names for each reason when tokenising drops them."""


@dataclass
class Rejects:
    """Rows that can't be used: how many for each reason, and where the first of them stand."""

    keep: int = EXAMPLES
    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)

    def add(self, reason: str, where: str, detail: str) -> None:
        """Count one row."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        noted = self.examples.setdefault(reason, [])
        if len(noted) < self.keep:
            noted.append({"where": _printable(where), "detail": _printable(detail)})

    def merge(self, other: Mapping[str, Mapping[str, Any]]) -> None:
        """Add what :meth:`as_dict` of another gave."""
        for reason, entry in other.items():
            self.counts[reason] = self.counts.get(reason, 0) + entry["count"]
            noted = self.examples.setdefault(reason, [])
            noted.extend(entry["examples"][: self.keep - len(noted)])

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def worst(self, number: int = 3) -> str:
        """The most frequent reasons with their first rows, for a message."""
        return "; ".join(
            f"{entry['count']} x {reason}, first {noted['where']} ({noted['detail']})"
            for reason, entry in list(self.as_dict().items())[:number]
            for noted in entry["examples"][:1]
        )

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Reason -> ``count`` and ``examples`` (``where`` is file:line), most frequent first."""
        order = sorted(self.counts, key=lambda reason: (-self.counts[reason], reason))
        return {r: {"count": self.counts[r], "examples": self.examples[r]} for r in order}


@dataclass
class TokenNotes:
    """What tokenising made of some rows of one domain."""

    rows: int = 0
    examples: int = 0
    """Rows of the store: more than ``rows`` where a conversation gives several."""
    tokens: int = 0
    supervised_tokens: int = 0
    truncated: int = 0
    dropped: Rejects = field(default_factory=Rejects)

    def keep(self, examples: int, tokens: int, supervised: int, truncated: bool) -> None:
        """Count a row that stays, with what its examples hold together."""
        self.rows += 1
        self.examples += examples
        self.tokens += tokens
        self.supervised_tokens += supervised
        self.truncated += truncated

    def merge(self, other: Mapping[str, Any]) -> None:
        """Add what :meth:`as_dict` of another gave."""
        self.rows += other["rows"]
        self.examples += other["examples"]
        self.tokens += other["tokens"]
        self.supervised_tokens += other["supervised_tokens"]
        self.truncated += other["truncated"]
        self.dropped.merge(other["dropped"])

    def as_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "examples": self.examples,
            "tokens": self.tokens,
            "supervised_tokens": self.supervised_tokens,
            "truncated": self.truncated,
            "dropped": self.dropped.as_dict(),
        }


def _printable(text: str) -> str:
    """``text`` fit for a report: short, and without half characters that no file can hold."""
    text = text.encode("utf-8", errors="backslashreplace").decode("utf-8")
    return text if len(text) <= 200 else text[:197] + "..."
