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

Beside the shards of a split, ``index.npy`` holds its columns of one number a row once more, as one
array: int32 of shape (4, rows), in the order of :data:`INDEXED`. Processes map it, so that a store
of 100 million rows takes no memory of its own before its rows are read.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import datasets
import numpy as np
import numpy.typing as npt

from versatune.artifacts import FolderRef, replacing
from versatune.errors import VersatuneError

Split = Literal["train", "steering", "report"]
"""``train`` is learnt from. ``steering`` rows are held out and decide: shares, references, early
stops, rollbacks. ``report`` rows are held out and decide nothing: results are only of them."""

INDEX = "index.npy"
INDEXED = ("domain", "length", "n_supervised", "n_bytes")
"""Columns with one number a row."""


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
        """Open one split of a finished store: the rows and the index are mapped, not read."""
        dataset = datasets.load_from_disk(str(ref.path / split))
        domains = tuple(ref.metadata["domains"])
        domain, lengths, supervised, n_bytes = _index(ref.path / split, dataset)
        starts = np.searchsorted(domain, np.arange(len(domains) + 1)).astype(np.int64)
        return cls(
            domains=domains,
            dataset=dataset.select_columns(["input_ids", "labels"]).with_format("numpy"),
            starts=starts,
            lengths=lengths,
            supervised=supervised,
            n_bytes=n_bytes,
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


def write_index(folder: Path) -> None:
    """Write ``index.npy`` of a split whose shards are there, a shard at a time.

    Raises VersatuneError when the disk does not take it.
    """
    dataset = datasets.load_from_disk(str(folder))
    shape = (len(INDEXED), len(dataset))
    header: dict[str, Any] = {"descr": "<i4", "fortran_order": False, "shape": shape}
    try:
        with replacing(folder / INDEX) as temporary, temporary.open("wb") as handle:
            np.lib.format.write_array_header_1_0(handle, header)
            for name in INDEXED:
                for shard in dataset.data.column(name).chunks:
                    handle.write(shard.to_numpy().astype("<i4", copy=False).data)
    except OSError as error:
        raise VersatuneError(f"{folder / INDEX} can't be written: {error}.") from error


def _index(folder: Path, dataset: datasets.Dataset) -> npt.NDArray[np.int32]:
    """The columns of :data:`INDEXED`, shape (4, rows)."""
    if (folder / INDEX).is_file():
        return np.asarray(np.load(folder / INDEX, mmap_mode="r"))
    # A store of a version that wrote none.
    columns = [dataset.data.column(name).to_numpy() for name in INDEXED]
    return np.array(columns, dtype=np.int32)
