"""Counts of rows: the report accounts for each row read, kept or rejected with a reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

    from versatune.data.encode import Example
    from versatune.data.selection import Duplicates, Small

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

    @classmethod
    def of(cls, *entries: Mapping[str, Mapping[str, Any]]) -> Self:
        """All that :meth:`as_dict` of others gave, with every example."""
        found = cls(keep=sum(len(e["examples"]) for r in entries for e in r.values()))
        for entry in entries:
            found.merge(entry)
        return found

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def summary(self) -> str:
        """``3 (2 too_long, 1 bad_json)``, or ``2 (too_long)``; nothing when there are none."""
        if len(self.counts) == 1:
            return f"{self.total} ({next(iter(self.counts))})"
        counts = ", ".join(f"{e['count']} {reason}" for reason, e in self.as_dict().items())
        return f"{self.total} ({counts})" if self.total else ""

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
    """The result of tokenising some rows of one domain."""

    rows: int = 0
    """Rows of which at least a part is kept: conversations and documents."""
    examples: int = 0
    """Rows of the store: more than ``rows`` where a conversation gives several, or where a
    document was cut into pieces."""
    documents: int = 0
    """How many of ``rows`` are documents."""
    thoughts: int = 0
    """How many of ``rows`` have an answer with a thought."""
    tokens: int = 0
    supervised_tokens: int = 0
    truncated: int = 0
    dropped: Rejects = field(default_factory=Rejects)

    def keep(self, examples: "Sequence[Example]", *, document: bool, thought: bool) -> None:
        """Count a row that is kept, with the totals of its examples."""
        self.rows += 1
        self.examples += len(examples)
        self.documents += document
        self.thoughts += thought
        self.tokens += sum(len(example.ids) for example in examples)
        self.supervised_tokens += sum(example.n_supervised for example in examples)
        self.truncated += any(example.truncated for example in examples)

    def merge(self, other: Mapping[str, Any]) -> None:
        """Add what :meth:`as_dict` of another gave."""
        self.dropped.merge(other["dropped"])
        for name in other.keys() - {"dropped"}:
            setattr(self, name, getattr(self, name) + other[name])

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "dropped": self.dropped.as_dict()}


@dataclass
class Foreign:
    """Rows that repeat a row of another domain: how many, and where the first of them stand."""

    counts: dict[str, dict[str, int]]
    """Domain -> the domain that its rows repeat -> how many."""
    examples: dict[tuple[str, str], list[tuple[int, int]]]
    """(domain, other domain) -> (number of the row, number of the one it repeats)."""
    places: dict[int, str]
    """Number of a row in an example -> file:line, once it was seen."""

    @classmethod
    def of(cls, duplicates: "Duplicates", domain: "Small", names: Sequence[str], keep: int) -> Self:
        """``domain``: the index of each row's domain in ``names``; ``keep``: examples a pair."""
        rows = np.flatnonzero(duplicates.original >= 0)
        others = duplicates.original[rows]
        rows, others = (part[domain[rows] != domain[others]] for part in (rows, others))
        counts: dict[str, dict[str, int]] = {name: {} for name in names}
        examples: dict[tuple[str, str], list[tuple[int, int]]] = {}
        for row, other in zip(rows.tolist(), others.tolist(), strict=True):
            pair = names[domain[row]], names[domain[other]]
            counts[pair[0]][pair[1]] = counts[pair[0]].get(pair[1], 0) + 1
            noted = examples.setdefault(pair, [])
            if len(noted) < keep:
                noted.append((row, other))
        wanted = {number for noted in examples.values() for pair in noted for number in pair}
        return cls(counts, examples, dict.fromkeys(sorted(wanted), ""))

    def see(self, start: int, places: "pa.Array") -> None:
        """Take the places of the next rows, of which the first has the number ``start``."""
        for number in self.places:
            if start <= number < start + len(places):
                self.places[number] = places[number - start].as_py()

    def of_domain(self, name: str) -> dict[str, dict[str, Any]]:
        """Other domain -> ``count`` and ``examples``: ``where`` a row stands, what it is ``of``."""
        return {
            other: {
                "count": count,
                "examples": [
                    {"where": self.places[row], "of": self.places[original]}
                    for row, original in self.examples[name, other]
                ],
            }
            for other, count in self.counts[name].items()
        }


def _printable(text: str) -> str:
    """``text`` made printable for a report: short, and without lone surrogates."""
    text = text.encode("utf-8", errors="backslashreplace").decode("utf-8")
    return text if len(text) <= 200 else text[:197] + "..."
