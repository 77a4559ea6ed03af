"""From a round's plan to the tensors of a batch."""

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from versatune.data.store import TokenizedSplit
from versatune.modeling.losses import IGNORE, Targets

Layout = Literal["varlen", "position_ids", "padded"]
"""How a batch is laid out: examples end to end in one row; packed rows whose positions restart;
one example a row with an attention mask."""

Row = tuple[int, ...]
"""The examples (row numbers of the store) that share a packed row."""


class PackedRows(torch.utils.data.Dataset[dict[str, Any]]):
    """Rows on demand: indexed by the examples they hold, so that workers need no plan."""

    def __init__(self, split: TokenizedSplit) -> None:
        self._split = split

    def __getitem__(self, row: Row) -> dict[str, Any]:
        examples = [self._split.dataset[int(i)] for i in row]
        return {
            "input_ids": [e["input_ids"] for e in examples],
            "labels": [_without_first(e["labels"]) for e in examples],
            "domains": np.searchsorted(self._split.starts, np.asarray(row), side="right") - 1,
        }

    def __len__(self) -> int:
        return len(self._split.lengths)


def _without_first(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """No token of the example predicts its first one, and the token before it belongs to another
    example."""
    labels = np.array(labels)
    labels[:1] = IGNORE
    return labels


class Collator:
    """Turns packed rows into a batch.

    The batch holds ``input_ids`` (rows, columns); ``positions``, ``targets`` and ``domains``, one
    entry a supervised token (see :class:`Targets`); and by layout ``position_ids``, ``seq_lens``
    and ``starts`` (varlen: the lengths of the examples, and where they begin, int32 of shape
    (examples + 1,)), ``position_ids`` (the layout of that name) or ``attention_mask`` (padded).

    With ``shape`` (rows of a batch, tokens of a row at most) compiled code meets only one shape:
    a varlen batch always has rows x tokens columns, filled up by examples of at most ``longest``
    tokens that nothing is learnt from, and holds ``longest`` in place of ``seq_lens``; packed rows
    whose positions restart always have as many columns as tokens. ``longest`` None: a whole row.
    """

    def __init__(
        self,
        layout: Layout,
        shape: tuple[int, int] | None = None,
        longest: int | None = None,
    ) -> None:
        self.layout = layout
        self.shape = None if layout == "padded" else shape
        self.longest = min(longest or shape[1], shape[1]) if shape else None

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        if self.layout == "varlen":
            rows = [{k: [x for row in rows for x in row[k]] for k in rows[0]}]
            if self.shape is not None and self.longest is not None:
                _fill(rows[0], self.shape[0] * self.shape[1], self.longest)
        width = max(sum(map(len, row["input_ids"])) for row in rows)
        if self.shape is not None and self.layout == "position_ids":
            width = self.shape[1]
        shape = (len(rows), width)
        ids, labels = np.zeros(shape, np.int64), np.full(shape, IGNORE, np.int64)
        places, domains = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for i, row in enumerate(rows):
            at = 0
            for tokens, marks, domain in zip(
                row["input_ids"], row["labels"], row["domains"], strict=True
            ):
                part = slice(at, at + len(tokens))
                ids[i, part], labels[i, part] = tokens, marks
                places[i, part], domains[i, part] = np.arange(len(tokens)), domain
                at += len(tokens)
            # What fills a row up is an example a token: no model has too few positions for that.
            places[i, at:] = 0
        target = Targets.of(labels)
        batch: dict[str, Any] = {
            "input_ids": torch.from_numpy(ids),
            "positions": torch.from_numpy(target.positions),
            "targets": torch.from_numpy(target.tokens),
            "domains": torch.from_numpy(domains.ravel()[target.positions + 1]),
        }
        if self.layout == "padded":
            lengths = [sum(map(len, row["input_ids"])) for row in rows]
            mask = np.arange(width)[None, :] < np.asarray(lengths)[:, None]
            batch["attention_mask"] = torch.from_numpy(mask.astype(np.int64))
            return batch
        batch["position_ids"] = torch.from_numpy(places)
        if self.layout == "varlen":
            seq_lens = tuple(len(tokens) for tokens in rows[0]["input_ids"])
            if self.shape is None:
                batch["seq_lens"] = seq_lens
            else:
                batch["longest"] = self.longest
            batch["starts"] = torch.tensor([0, *accumulate(seq_lens)], dtype=torch.int32)
        return batch


def _fill(row: dict[str, Any], tokens: int, longest: int) -> None:
    """Fill a varlen row up to ``tokens`` with unsupervised examples of zeros.

    None is longer than ``longest``, beyond which a model may have no positions. There is one at
    least in every batch but a full one.
    """
    left = tokens - sum(map(len, row["input_ids"]))
    while left > 0:
        size = min(left, longest)
        row["input_ids"].append(np.zeros(size, np.int64))
        row["labels"].append(np.full(size, IGNORE, np.int64))
        row["domains"].append(0)
        left -= size


class RoundSampler(torch.utils.data.Sampler[list[Row]]):
    """The batches of an epoch, a round or a part of one, in the global order that ranks divide.

    ``batch_size`` rows a batch, the same number of batches each epoch, so that ``len`` is
    constant for the schedule. ``plan`` is called at the start of each epoch.
    """

    drop_last = True

    def __init__(self, plan: Callable[[int], list[Row]], batch_size: int, n_batches: int) -> None:
        self._plan = plan
        self._epoch = 0
        self.batch_size = batch_size
        self._n_batches = n_batches

    def set_epoch(self, epoch: int) -> None:
        """Trainer says which epoch begins."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[list[Row]]:
        rows = self._plan(self._epoch)
        for start in range(0, self._n_batches * self.batch_size, self.batch_size):
            yield rows[start : start + self.batch_size]

    def __len__(self) -> int:
        return self._n_batches
