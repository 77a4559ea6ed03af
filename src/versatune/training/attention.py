"""Attention that stays inside each packed example, and what a model is trained with.

Packed examples are laid end to end in one row; ``segments`` (their lengths) goes through the
model to the attention, which runs causally over each example by itself. Nothing is computed
across examples, where a block-diagonal mask computes all and throws it away, and no padding
is needed. transformers' own way (positions that restart, no mask) is used for models whose
attention can't be replaced, and padded rows for those that can't keep examples apart at all.
"""

import logging
from typing import Any, Literal

import torch
from torch import Tensor

from versatune.modeling.losses import TokenLoss
from versatune.training.cpu_attention import LONGEST, SegmentAttention

logger = logging.getLogger(__name__)

NAME = "versatune_segments"

Layout = Literal["flat", "rows", "padded"]
"""How a batch is laid out: examples end to end in one row; packed rows whose positions restart;
one example a row with an attention mask."""


def segment_attention(
    _module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    segments: tuple[int, ...] | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention over each of ``segments``; query (rows, heads, columns, size).

    Without ``segments`` each row is one example. Returns (rows, columns, heads, size). Raises
    NotImplementedError for softcapped or masked attention, which then stays transformers' own.
    """
    if softcap is not None or attention_mask is not None:
        raise NotImplementedError("segments need plain causal attention")
    lengths = segments or (query.shape[2],)
    if _by_blocks(query, max(lengths)) and not dropout:
        scale = scaling or query.shape[-1] ** -0.5
        window = (
            None if sliding_window is None or max(lengths) <= sliding_window else sliding_window
        )
        out = SegmentAttention.apply(query[0], key[0], value[0], lengths, window, scale)
        return out[None], None
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key = key.repeat_interleave(groups, dim=1)
        value = value.repeat_interleave(groups, dim=1)
    parts = [
        _attend(q, k, v, sliding_window, dropout, scaling).transpose(1, 2)
        for q, k, v in zip(*(x.split(lengths, dim=2) for x in (query, key, value)), strict=True)
    ]
    return torch.cat(parts, dim=1), None


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window: int | None,
    dropout: float,
    scaling: float | None,
) -> Tensor:
    """Causal attention over one example, each (rows, heads, length, size)."""
    length = query.shape[2]
    short = window is None or length <= window
    return torch.nn.functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=None if short else _visible(length, window, query.device),
        is_causal=short,
        dropout_p=dropout,
        scale=scaling,
    )


def _by_blocks(query: Tensor, longest: int) -> bool:
    """Whether there is a faster way than the fused kernel, see ``cpu_attention``.

    Longer examples stay with the fused kernel, whose memory does not grow with the square.
    """
    on_cpu = query.device.type == "cpu" and query.dtype == torch.bfloat16
    return on_cpu and torch.is_grad_enabled() and len(query) == 1 and longest <= LONGEST


def _visible(length: int, window: int | None, device: torch.device) -> Tensor:
    """Shape (length, length), true where a token (row) looks at another (column)."""
    at = torch.arange(length, device=device)
    distance = at[:, None] - at[None, :]
    return (distance >= 0) if window is None else (distance >= 0) & (distance < window)


def _no_mask(*_: Any, **__: Any) -> None:
    return None


def choose_layout(model: Any, packing: bool) -> Layout:
    """The fastest layout that keeps the examples of this model apart; tried on a few tokens.

    Sets the model's attention to go with it. Anything but what was asked for is logged.
    """
    if not packing:
        return "padded"
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, segment_attention)
    AttentionMaskInterface.register(NAME, _no_mask)
    own = model.config._attn_implementation
    layouts: list[tuple[Layout, str]] = [("rows", own)]
    if not own.startswith("flash") and model._supports_attention_backend:
        layouts.insert(0, ("flat", NAME))
    elif own.startswith("flash"):
        layouts.insert(0, ("flat", own))
    for layout, attention in layouts:
        model.set_attn_implementation(attention)
        if keeps_apart(model, layout):
            return layout
    model.set_attn_implementation(own)
    logger.warning(
        "%s can't keep packed examples apart: training uses padded rows of like lengths.",
        type(model).__name__,
    )
    return "padded"


@torch.no_grad()
def keeps_apart(model: Any, layout: Layout) -> bool:
    """Whether two examples packed in ``layout`` get the losses they get alone."""
    training, device = model.training, model.device
    ids = torch.arange(12, device=device)[None] * 7 % model.config.get_text_config().vocab_size
    at = torch.cat([torch.arange(4), torch.arange(5, 11)]).to(device)
    inputs: dict[str, Any] = {
        "position_ids": torch.cat([torch.arange(5), torch.arange(7)]).to(device)[None]
    }
    if layout == "flat":
        inputs["segments"] = (5, 7)
    model.eval()
    try:
        loss = TokenLoss(model)
        packed = loss(ids, at, ids[0, at + 1], **inputs)
        alone = [
            loss(part, torch.arange(n, device=device), part[0, 1 : n + 1])
            for part, n in ((ids[:, :5], 4), (ids[:, 5:], 6))
        ]
    except (TypeError, NotImplementedError, ValueError) as error:
        logger.debug("%s, layout %s: %s", type(model).__name__, layout, error)
        return False
    finally:
        model.train(training)
    close = 1e-4 if model.dtype == torch.float32 else 3e-2
    return torch.allclose(packed, torch.cat(alone), rtol=close, atol=close)
