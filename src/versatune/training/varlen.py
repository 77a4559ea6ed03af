"""Attention over packed examples on a GPU: one call for a whole row of examples.

torch's ``varlen_attn`` runs the flash kernel over examples laid end to end. It takes grouped key
and value heads as they are, and a window, without repeating, padding or loops.
"""

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

LARGEST_HEAD = 256
"""Numbers in a head that the kernel takes at most."""


def takes(query: Tensor, dropout: float) -> bool:
    """Whether the kernel runs what a model asks for."""
    return (
        query.device.type == "cuda"
        and query.dtype in (torch.bfloat16, torch.float16)
        and query.shape[-1] <= LARGEST_HEAD
        and not dropout
    )


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: Tensor,
    longest: int,
    window: int | None,
    scale: float,
) -> Tensor:
    """Causal attention within each example.

    query (1, heads, tokens, size); key and value with as many heads or fewer, by a whole factor;
    heads of values may have another size. ``starts`` (examples + 1,), int32, on their device: the
    first token of each example, and the number of tokens; repeated ones are examples of no tokens.
    ``longest``: tokens of the longest example, or a bound of it.
    ``window``: how many tokens each sees, itself included; None for all before it. Returns
    (1, tokens, heads, size of value).
    """
    # The kernel takes one size for all heads, a multiple of 8. What fills them up adds nothing to
    # a product, and its part of the result is left out.
    size = value.shape[-1]
    even = -(-max(query.shape[-1], size) // 8) * 8
    out = varlen_attn(
        _tokens_first(query, even),
        _tokens_first(key, even),
        _tokens_first(value, even),
        starts,
        starts,
        longest,
        longest,
        scale=scale,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(out, Tensor)
    return out[None] if size == even else out[None, ..., :size]


def _tokens_first(x: Tensor, size: int) -> Tensor:
    """Shape (tokens, heads, size), filled up with zeros."""
    filled = x[0].transpose(0, 1)
    missing = size - filled.shape[-1]
    return torch.nn.functional.pad(filled, (0, missing)) if missing else filled
