"""The interface of judges, and the labelled rows that measure their errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from safetensors.numpy import load_file, save_file

from versatune.artifacts import FolderRef
from versatune.errors import VersatuneError
from versatune.intervals import Array
from versatune.probing.quantification import Labels
from versatune.samplers.base import read_samples

Status = Literal["ok", "empty", "refused", "unparseable", "failed"]

LABELLED = "labelled.safetensors"


@dataclass(frozen=True)
class Judgement:
    """A judge's answers on n texts."""

    probabilities: Array
    """(n, k); rows sum to 1 where the status is ``ok``, NaN elsewhere."""
    status: list[Status]
    vocab_coverage: Array
    """(n,) share of a text's words the judge knows; NaN when the judge can't say."""
    facts: dict[str, int] = field(default_factory=dict)
    """Counts to report: tokens sent and received."""

    @property
    def ok(self) -> np.ndarray:
        """(n,) bool: which texts were judged."""
        return np.array([s == "ok" for s in self.status], dtype=bool)


class Judge(Protocol):
    """Gives each text a probability for each domain."""

    def judge(self, texts: Sequence[str]) -> Judgement:
        """Judge the texts, in order."""
        ...


@dataclass(frozen=True)
class About:
    """What a judge may need besides its own parameters."""

    descriptions: Mapping[str, str] = field(default_factory=dict)
    """Domain -> what belongs to it."""
    seed: int = 0
    keep: Path = Path("answers")
    """The folder of answers that cost money."""
    api_key: str = ""
    key: str = "probe.judge"
    """Where the judge's parameters stand, for messages."""
    background: "Background | None" = None
    """Samples of the base model. A classifier uses them for a domain without rows; other judges
    know such a domain by its description."""


def with_new_names(kept: dict[str, Any]) -> dict[str, Any]:
    """Arrays of a file, also of one that was written when ``vocab_coverage`` had another name."""
    return {"vocab_coverage" if n == "familiarity" else n: array for n, array in kept.items()}


@dataclass(frozen=True)
class Labelled:
    """Held-out rows of known domain, as the judge sees them."""

    probabilities: Array
    """(m, k)"""
    labels: Labels
    """(m,) index of the true domain"""
    vocab_coverage: Array
    """(m,)"""

    @classmethod
    def oracle(cls, k: int) -> "Labelled":
        """Of a judge whose answers count as true: a right answer for each of k domains."""
        return cls(np.eye(k), np.arange(k), np.full(k, np.nan))

    def with_oracle(self, domains: Sequence[int]) -> "Labelled":
        """With a right answer for each of these domains, of which there are no labelled rows."""
        known, added = self.oracle(self.probabilities.shape[1]), list(domains)
        return Labelled(
            np.concatenate([self.probabilities, known.probabilities[added]]),
            np.concatenate([self.labels, known.labels[added]]),
            np.concatenate([self.vocab_coverage, known.vocab_coverage[added]]),
        )

    def save(self, folder: Path) -> None:
        """Write to a judge's folder."""
        save_file(dict(vars(self)), folder / LABELLED)

    @classmethod
    def load(cls, judge: FolderRef) -> "Labelled":
        """Read from a finished judge's folder."""
        return cls(**with_new_names(load_file(judge.path / LABELLED)))


@dataclass(frozen=True)
class Background:
    """The first ``n`` samples of a base model: texts of no domain in particular."""

    samples: FolderRef
    n: int

    def texts(self) -> list[str]:
        """Each text once, without empty ones and loops."""
        drawn = read_samples(self.samples.path)[: self.n]
        return list(dict.fromkeys(s.text for s in drawn if not s.flag))


def without_rows(clean: FolderRef) -> list[str]:
    """The domains that have no ingested rows: what the base model itself writes is all of them."""
    return list(clean.metadata.get("only_own", []))


def labelled_texts(
    clean: FolderRef, per_domain: int, seed: int, unlike: Sequence[str] = ()
) -> tuple[list[str], Labels, tuple[str, ...]]:
    """Texts of ingested rows with the index of their domain: at most ``per_domain`` each.

    A text is the contents of the row's messages, joined by line ends. Rows are drawn by seed.
    ``unlike``: texts that stand for the one domain without rows. Without them such domains have
    none.
    """
    import datasets

    domains = tuple(clean.metadata["domains"])
    rows = datasets.load_from_disk(str(clean.path / "train"))
    numbers = rows.data.column("domain").to_numpy()
    rng = np.random.default_rng(seed)
    texts: list[str] = []
    labels: list[int] = []
    for number in range(len(domains)):
        mine = np.flatnonzero(numbers == number)
        if len(mine) > per_domain:
            mine = np.sort(rng.choice(mine, per_domain, replace=False))
        for messages in rows.select(mine)["messages"]:
            text = "\n".join(m["content"] for m in messages).strip()
            if text:
                texts.append(text)
                labels.append(number)
    empty = without_rows(clean)
    if empty and unlike:
        texts += unlike[:per_domain]
        labels += [domains.index(empty[0])] * len(unlike[:per_domain])
    found = np.bincount(labels, minlength=len(domains))
    for domain, count in zip(domains, found, strict=True):
        if count < 5 and (domain not in empty or unlike):
            raise VersatuneError(
                f"the judge needs at least 5 rows of each domain; {domain} has {count} after "
                "cleaning. Add rows or remove the domain."
            )
    return texts, np.array(labels, dtype=np.int64), domains
