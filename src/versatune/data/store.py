"""The tokenised sets on disk: what training and evaluation read.

A store is a finished folder with one saved Arrow dataset a split, its rows in the order of the
domains, and these columns:

=============  ==========  =====================================================
input_ids      list<i32>   the whole example, chat template applied
labels         list<i32>   input_ids where supervised, -100 elsewhere (same length)
domain         i32         index into ``metadata["domains"]``
length         i32         number of tokens
n_supervised   i32         number of labels that are not -100
n_bytes        i32         UTF-8 bytes of the supervised text, for bits per byte
row            string      where the example came from, as ``file:line``
=============  ==========  =====================================================
"""

from dataclasses import dataclass
from typing import Literal, Self

import datasets
import numpy as np
import numpy.typing as npt

from versatune.artifacts import FolderRef

Split = Literal["train", "steering", "report"]
"""``train`` is learnt from. ``steering`` rows are held out and decide: shares, references, early
stops, rollbacks. ``report`` rows are held out and decide nothing: results are of them alone."""


@dataclass(frozen=True)
class TokenizedSplit:
    """One split of a store: a memory-mapped dataset and the small columns planning needs."""

    domains: tuple[str, ...]
    dataset: datasets.Dataset
    starts: npt.NDArray[np.int64]
    """Shape (k + 1,): the rows of domain j are ``starts[j]`` to ``starts[j + 1] - 1``."""
    lengths: npt.NDArray[np.int32]
    supervised: npt.NDArray[np.int32]
    n_bytes: npt.NDArray[np.int32]

    @classmethod
    def load(cls, ref: FolderRef, split: Split) -> Self:
        """Open one split of a finished store. Memory: three integers a row."""
        dataset = datasets.load_from_disk(str(ref.path / split))
        domains = tuple(ref.metadata["domains"])
        domain = _column(dataset, "domain")
        starts = np.searchsorted(domain, np.arange(len(domains) + 1)).astype(np.int64)
        return cls(
            domains=domains,
            dataset=dataset.select_columns(["input_ids", "labels"]).with_format("numpy"),
            starts=starts,
            lengths=_column(dataset, "length"),
            supervised=_column(dataset, "n_supervised"),
            n_bytes=_column(dataset, "n_bytes"),
        )

    def rows(self, domain: int) -> range:
        """Row numbers of the domain with this index."""
        return range(int(self.starts[domain]), int(self.starts[domain + 1]))

    def amounts(self, unit: str) -> npt.NDArray[np.float64]:
        """How much each domain has, shape (k,), in rows, tokens or supervised_tokens."""
        if unit == "rows":
            return np.diff(self.starts).astype(np.float64)
        sizes = self.lengths if unit == "tokens" else self.supervised
        rows = map(self.rows, range(len(self.domains)))
        return np.array([sizes[r.start : r.stop].sum() for r in rows], dtype=np.float64)


def _column(dataset: datasets.Dataset, name: str) -> npt.NDArray[np.int32]:
    result: npt.NDArray[np.int32] = (
        dataset.data.column(name).to_numpy().astype(np.int32, copy=False)
    )
    return result
