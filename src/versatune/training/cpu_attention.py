"""Causal attention over packed examples in bfloat16 on a CPU, forward and backward written out.

The fused kernel's bfloat16 backward pass is slow on CPUs, and a call an example makes many small
products.

Examples are cut into tiles of :data:`BLOCK` queries. The n-th tiles of all examples see equally
many keys, so they are one batch of products, and the half of the scores above the diagonal is
hardly computed. Products and weights are bfloat16, sums within softmax and over tiles float32.
Heads that share a key are one product.

What a key head has at a column (the vectors of all heads that share it, for queries) is a row, of
number ``column * shared + head``. Tiles are gathered from rows, and results put back into them.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

BLOCK = 64
"""Queries of a tile."""

LONGEST = 1024
"""Tokens of an example it is meant for: what it keeps for the backward pass grows with their
square. At 1024 a layer keeps 1.1 MB of weights a head, and keys and values 8.5 times over, once for
each tile that sees them: 2.2 MB a key head of size 64."""


@dataclass(frozen=True)
class Batch:
    """Tiles with equally many keys, over key heads and examples."""

    n: int
    n_keys: int
    queries: slice
    """Where they lie among the queries of all tiles, in the order (head, example, query)."""
    keys: slice
    """Where they lie among the keys of all tiles, in the order (head, example, key)."""

    def of_queries(self, rows: Tensor, groups: int) -> Tensor:
        """A view (n, queries x groups, size) of what all tiles have."""
        return rows[self.queries].view(self.n, BLOCK * groups, -1)

    def of_keys(self, rows: Tensor) -> Tensor:
        """A view (n, keys, size) of what all tiles have."""
        return rows[self.keys].view(self.n, self.n_keys, -1)


@dataclass(frozen=True)
class Tiling:
    """Which rows the tiles hold, and where each row is in them."""

    batches: tuple[Batch, ...]
    queries: Tensor
    """Rows; where an example ends before its tile, the number of rows."""
    keys: Tensor
    """Rows; where an example ends before its tile, any: causality hides them."""
    query_place: Tensor
    """For each row its place in ``queries``."""
    key_places: Tensor
    """The places in ``keys`` of the first row, then of the second, and so on."""
    key_starts: Tensor
    """For each row where its places begin in ``key_places``."""


class SegmentAttention(torch.autograd.Function):
    """``apply(query, key, value, seq_lens, window, scale)``.

    query (heads, columns, size), key and value (heads / groups, columns, size); ``seq_lens`` are
    the examples' lengths, ``window`` how far a token looks back (None: to its example's start).
    Returns (columns, heads, size).
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        seq_lens: tuple[int, ...],
        window: int | None,
        scale: float,
    ) -> Tensor:
        (heads, columns, size), shared = query.shape, len(key)
        tiles, groups = tiling(seq_lens, shared), heads // shared
        query = _rows(query, groups * size)
        query = query.index_select(0, tiles.queries.clamp(max=len(query) - 1))
        key = (_rows(key, size) * scale).index_select(0, tiles.keys)
        value = _rows(value, value.shape[-1]).index_select(0, tiles.keys)
        out = query.new_empty(len(query), groups * value.shape[-1])
        weights = []
        for batch in tiles.batches:
            scores = torch.bmm(batch.of_queries(query, groups), batch.of_keys(key).mT)
            _hide(scores.unflatten(1, (BLOCK, groups)), window)
            weights.append(scores.softmax(-1))
            torch.bmm(weights[-1], batch.of_keys(value), out=batch.of_queries(out, groups))
        ctx.save_for_backward(query, key, value, *weights)
        ctx.about = tiles, (columns, shared, groups), scale
        return out.index_select(0, tiles.query_place).view(columns, heads, -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *weights = ctx.saved_tensors
        tiles, (columns, shared, groups), scale = ctx.about
        incoming = gradients[0].reshape(columns * shared, -1)
        incoming = torch.cat([incoming, torch.zeros_like(incoming[:1])])
        incoming = incoming.index_select(0, tiles.queries)
        of_query, of_key, of_value = map(torch.empty_like, (query, key, value))
        for batch, weight in zip(tiles.batches, weights, strict=True):
            from_out = batch.of_queries(incoming, groups)
            torch.bmm(weight.mT, from_out, out=batch.of_keys(of_value))
            of_weight = torch.bmm(from_out, batch.of_keys(value).mT)
            # The operator behind softmax's own backward pass; it has no public name.
            of_scores = torch._softmax_backward_data(of_weight, weight, -1, weight.dtype)
            torch.bmm(of_scores, batch.of_keys(key), out=batch.of_queries(of_query, groups))
            queries = batch.of_queries(query, groups)
            torch.bmm(of_scores.mT, queries, out=batch.of_keys(of_key))
        of_query = of_query.index_select(0, tiles.query_place)
        # A bag adds up in float32 what the tiles of an example give to a key.
        of_key, of_value = (
            embedding_bag(tiles.key_places, x, tiles.key_starts, mode="sum")
            for x in (of_key, of_value)
        )
        heads = (
            x.view(columns, n, -1).transpose(0, 1)
            for x, n in ((of_query, shared * groups), (of_key * scale, shared), (of_value, shared))
        )
        return (*heads, None, None, None)


@lru_cache(maxsize=4)
def tiling(seq_lens: tuple[int, ...], shared: int) -> Tiling:
    """The tiles of examples of these lengths, laid end to end, for ``shared`` key heads.

    Every layer of a step asks for the same.
    """
    lengths = torch.tensor(seq_lens)
    starts, n_rows = lengths.cumsum(0) - lengths, int(lengths.sum()) * shared
    head = torch.arange(shared)[:, None, None]

    def rows(examples: Tensor, first: int, stop: int) -> Tensor:
        """Rows of the columns from ``first`` to ``stop`` of each example, a head at a time."""
        at = torch.arange(first, stop)
        row = (starts[examples, None] + at) * shared + head
        return torch.where(at < lengths[examples, None], row, n_rows).flatten()

    batches: list[Batch] = []
    queries, keys = [torch.empty(0, dtype=torch.int64)], [torch.empty(0, dtype=torch.int64)]
    n_queries = n_keys = 0
    for start in range(0, max(seq_lens), BLOCK):
        examples = torch.nonzero(lengths > start)[:, 0]
        queries.append(rows(examples, start, start + BLOCK))
        keys.append(rows(examples, 0, start + BLOCK))
        ends = n_queries + len(queries[-1]), n_keys + len(keys[-1])
        parts = slice(n_queries, ends[0]), slice(n_keys, ends[1])
        batches.append(Batch(len(examples) * shared, start + BLOCK, *parts))
        n_queries, n_keys = ends
    query, key = torch.cat(queries), torch.cat(keys)
    place = torch.empty(n_rows + 1, dtype=torch.int64)
    place[query] = torch.arange(n_queries)
    counts = torch.bincount(key, minlength=n_rows + 1)[:-1]
    return Tiling(
        batches=tuple(batches),
        queries=query,
        keys=key.clamp(max=n_rows - 1),
        query_place=place[:-1],
        key_places=key.argsort(stable=True)[: int(counts.sum())],
        key_starts=counts.cumsum(0) - counts,
    )


def _rows(x: Tensor, size: int) -> Tensor:
    """(heads, columns, ..) as rows; no copy where memory holds a column's heads together."""
    return x.transpose(0, 1).reshape(-1, size)


def _hide(scores: Tensor, window: int | None) -> None:
    """Mask what a query must not see: scores (n, queries, groups, keys); both end together."""
    keys = scores.shape[-1]
    later = torch.ones(BLOCK, BLOCK, dtype=torch.bool).triu(1)
    scores[..., keys - BLOCK :].masked_fill_(later[:, None], -torch.inf)
    if window is not None:
        seen_from = torch.arange(keys - BLOCK, keys)[:, None]
        far = seen_from - torch.arange(keys) >= window
        scores.masked_fill_(far[:, None], -torch.inf)
