"""The held-out loss of a model, per domain, on a fixed stratified subset."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field

from versatune.data.store import TokenizedSplit
from versatune.errors import VersatuneError
from versatune.intervals import ratio_stderr
from versatune.modeling.losses import IGNORE, Targets, TokenLoss
from versatune.work import bars

LossFunction = Callable[..., torch.Tensor]
"""Called as ``f(input_ids=, positions=, targets=)`` -> nats per target, like TokenLoss."""

ON_CPU, ON_OTHERS = 2048, 16384
"""Tokens measured at a time when it is left open: on a CPU what its caches hold."""


class HeldOut(BaseModel):
    """The loss of one domain."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nats_per_token: float
    """Mean over the supervised tokens of the subset."""
    bits_per_byte: float
    """The same loss in bits per UTF-8 byte of the supervised text: compares over tokenizers."""
    stderr: float
    """Of nats_per_token, over rows (ratio estimator); 0 with a single row."""
    n_rows: int
    n_tokens: int
    """Supervised tokens."""
    row_nats: tuple[float, ...] = Field((), repr=False)
    """Summed nats of each row in the order of :func:`chosen_rows`, so that a change is paired."""


def chosen_rows(
    split: TokenizedSplit, rows_per_domain: int | None, tokens_per_domain: int | None = None
) -> list[npt.NDArray[np.int64]]:
    """Row numbers to measure on, an array a domain: all, or some drawn without replacement.

    With ``tokens_per_domain`` more rows are drawn where these have fewer supervised tokens, until
    they have that many: a loss is a mean over tokens, and answers may be of two tokens each.

    The same for the same split and count, whatever the seed of a run: reference losses and the
    losses they are compared with are of the same rows (drawing others wants another
    ``data.row_choice.ROW_CHOICE``). A larger count holds the smaller one's
    rows, and a domain's rows do not depend on which other domains the split is restricted to.
    """
    chosen = []
    for domain in range(len(split.domains)):
        rows = np.asarray(split.rows(domain))
        if rows_per_domain is not None and rows_per_domain < len(rows):
            rng = np.random.default_rng([0, int(split.starts[domain])])
            order = rng.permutation(len(rows))
            n = rows_per_domain
            if tokens_per_domain is not None:
                had = np.cumsum(split.supervised[rows[order]])
                n = max(n, int(np.searchsorted(had, tokens_per_domain)) + 1)
            rows = np.sort(rows[order[:n]])
        chosen.append(rows.astype(np.int64))
    return chosen


def batches(
    lengths: npt.NDArray[np.integer[Any]], batch_tokens: int
) -> list[npt.NDArray[np.int64]]:
    """Indices into ``lengths`` in batches of like lengths, longest first.

    A batch holds at most ``batch_tokens`` tokens with its padding, and at least one row.
    """
    order = np.argsort(-lengths, kind="stable")
    result, start = [], 0
    while start < len(order):
        size = max(1, batch_tokens // max(1, int(lengths[order[start]])))
        result.append(order[start : start + size])
        start += size
    return result


def pad(rows: list[dict[str, Any]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """``input_ids`` and ``labels``, padded on the right to (rows, longest).

    Causal attention never looks to the right, so no token sees the padding and no mask is needed.
    """
    width = max(len(row["input_ids"]) for row in rows)
    ids = np.zeros((len(rows), width), dtype=np.int64)
    labels = np.full((len(rows), width), IGNORE, dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row["input_ids"])] = row["input_ids"]
        labels[i, : len(row["labels"])] = row["labels"]
    return ids, labels


def heldout_losses(
    model: Any,
    split: TokenizedSplit,
    *,
    rows_per_domain: int | None,
    tokens_per_domain: int | None = None,
    batch_tokens: int | None,
    loss: LossFunction | None = None,
    rank: int = 0,
    world: int = 1,
    progress: bool = True,
) -> dict[str, HeldOut]:
    """Measure ``model`` on a fixed subset of ``split``: a :class:`HeldOut` for each domain.

    Which rows: :func:`chosen_rows`; ``rows_per_domain`` None measures every one.
    ``batch_tokens`` None is :data:`ON_CPU` or :data:`ON_OTHERS`. ``loss`` replaces
    ``TokenLoss(model)`` (a model wrapped for several processes); with ``world`` processes each
    measures its part of the batches and all get the whole result. The model is measured in eval
    mode and left as it was.
    Raises VersatuneError when a domain has nothing to measure.
    """
    chosen = chosen_rows(split, rows_per_domain, tokens_per_domain)
    rows = np.concatenate(chosen)
    sums = row_losses(model, split, rows, batch_tokens, loss, rank, world, progress)
    by_domain = np.split(sums, np.cumsum([len(part) for part in chosen])[:-1])
    return {
        name: summary(name, own[:, 0], own[:, 1], int(split.n_bytes[part].sum()))
        for name, part, own in zip(split.domains, chosen, by_domain, strict=True)
    }


@torch.no_grad()
def row_losses(
    model: Any,
    split: TokenizedSplit,
    rows: npt.NDArray[np.int64],
    batch_tokens: int | None,
    loss: LossFunction | None = None,
    rank: int = 0,
    world: int = 1,
    progress: bool = True,
) -> npt.NDArray[np.float64]:
    """Shape (rows, 2): summed nats and supervised tokens of each of ``rows``, in that order."""
    device = next(model.parameters()).device
    if batch_tokens is None:
        batch_tokens = ON_CPU if device.type == "cpu" else ON_OTHERS
    parts = batches(split.lengths[rows], batch_tokens)
    sums = torch.zeros((len(rows), 2), dtype=torch.float64, device=device)
    training = model.training
    model.eval()
    loss = loss or TokenLoss(model)
    rounds = range(-(-len(parts) // world))
    hidden = not progress or rank != 0
    for i in bars.each(rounds, len(rounds), "held-out loss", "batches", hidden=hidden):
        # Every process calls the model equally often, as a sharded model needs; a process
        # without a batch of its own repeats the last one and doesn't count it.
        index = i * world + rank
        part = parts[min(index, len(parts) - 1)]
        ids, labels = pad([split.dataset[int(rows[j])] for j in part])
        targets = Targets.of(labels)
        nats = loss(
            input_ids=torch.from_numpy(ids).to(device),
            positions=torch.from_numpy(targets.positions).to(device),
            targets=torch.from_numpy(targets.tokens).to(device),
        )
        if index < len(parts):
            owner = torch.from_numpy(part[targets.positions // ids.shape[1]]).to(device)
            both = torch.stack([nats.double(), torch.ones_like(nats, dtype=torch.float64)], 1)
            sums.index_add_(0, owner, both)
    model.train(training)
    if world > 1:
        torch.distributed.all_reduce(sums)
    result: npt.NDArray[np.float64] = sums.cpu().numpy()
    return result


def summary(
    name: str, nats: npt.NDArray[np.float64], tokens: npt.NDArray[np.float64], n_bytes: int
) -> HeldOut:
    """The loss of one domain from its rows' sums; ``n_bytes`` is of all these rows together."""
    total = tokens.sum()
    if total == 0:
        raise VersatuneError(
            f"domain {name!r} has no supervised token among its held-out rows, so that no loss can "
            "be measured: give it more rows with answers, or leave it out of the domains."
        )
    return HeldOut(
        nats_per_token=float(nats.sum() / total),
        bits_per_byte=float(nats.sum() / math.log(2) / n_bytes),
        stderr=ratio_stderr(nats, tokens),
        n_rows=len(nats),
        n_tokens=int(total),
        row_nats=tuple(nats.tolist()),
    )
