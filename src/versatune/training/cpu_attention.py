"""Causal attention over packed examples in bfloat16 on a CPU, forward and backward written out.

The fused kernel's bfloat16 backward pass is slow on CPUs. Here each example is taken a block of
queries at a time against the keys they may see, so that the half of the scores above the diagonal
is hardly computed; products and weights are bfloat16, and sums within softmax and over blocks
float32. Heads that share a key are one product.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

BLOCK = 128
"""Queries at a time."""

LONGEST = 1024
"""Tokens of an example it is meant for: what it keeps for the backward pass grows with their
square (1 MB a head and layer at 1024)."""


class SegmentAttention(torch.autograd.Function):
    """``apply(query, key, value, segments, window, scale)``.

    query (heads, columns, size), key and value (heads / groups, columns, size); ``segments`` are
    the examples' lengths, ``window`` how far a token looks back (None: to its example's start).
    Returns (columns, heads, size).
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        segments: tuple[int, ...],
        window: int | None,
        scale: float,
    ) -> Tensor:
        shared = len(key)
        query = (query * scale).unflatten(0, (shared, -1))
        out = query.new_empty(query.shape[2], shared, query.shape[1], value.shape[-1])
        weights = []
        for rows, columns in blocks(segments, window):
            scores = query[:, :, rows].flatten(1, 2) @ key[:, columns].mT
            scores = scores.unflatten(1, (query.shape[1], -1))
            _hide(scores, window)
            weights.append(scores.softmax(-1))
            part = weights[-1].flatten(1, 2) @ value[:, columns]
            out[rows] = part.unflatten(1, (query.shape[1], -1)).permute(2, 0, 1, 3)
        ctx.save_for_backward(query, key, value, *weights)
        ctx.about = segments, window, scale
        return out.flatten(1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *weights = ctx.saved_tensors
        segments, window, scale = ctx.about
        groups = query.shape[1]
        from_out = gradients[0].unflatten(1, (len(key), groups)).permute(1, 2, 0, 3)
        of_query = torch.empty_like(query)
        of_key = torch.zeros_like(key, dtype=torch.float32)
        of_value = torch.zeros_like(value, dtype=torch.float32)
        for (rows, columns), weight in zip(blocks(segments, window), weights, strict=True):
            incoming = from_out[:, :, rows].flatten(1, 2)
            of_value[:, columns] += weight.flatten(1, 2).mT @ incoming
            of_weight = (incoming @ value[:, columns].mT).view_as(weight)
            # The operator behind softmax's own backward pass; it has no public name.
            of_scores = torch._softmax_backward_data(of_weight, weight, -1, weight.dtype)
            of_scores = of_scores.flatten(1, 2)
            of_query[:, :, rows] = (of_scores @ key[:, columns]).unflatten(1, (groups, -1))
            of_key[:, columns] += of_scores.mT @ query[:, :, rows].flatten(1, 2)
        of_query = of_query.mul_(scale).flatten(0, 1)
        return of_query, of_key.to(key.dtype), of_value.to(value.dtype), None, None, None


def blocks(segments: tuple[int, ...], window: int | None) -> Iterator[tuple[slice, slice]]:
    """Queries, and the keys that one of them or more may see."""
    start = 0
    for length in segments:
        end = start + length
        for begin in range(start, end, BLOCK):
            stop = min(begin + BLOCK, end)
            first = start if window is None else max(start, begin - window + 1)
            yield slice(begin, stop), slice(first, stop)
        start = end


def _hide(scores: Tensor, window: int | None) -> None:
    """Put out what a query must not see: scores (.., queries, keys), where both end together."""
    queries, keys = scores.shape[-2:]
    later = torch.ones(queries, queries, dtype=torch.bool, device=scores.device).triu(1)
    scores[..., keys - queries :].masked_fill_(later, -torch.inf)
    if window is not None:
        seen_from = torch.arange(keys - queries, keys, device=scores.device)[:, None]
        far = seen_from - torch.arange(keys, device=scores.device)[None, :] >= window
        scores.masked_fill_(far, -torch.inf)
