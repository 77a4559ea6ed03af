"""Attention that stays inside each packed example, and what a model is trained with.

Packed examples are laid end to end in one row; ``segments`` (their lengths) goes through the
model to the attention, which runs causally over each example by itself. Nothing is computed
across examples, where a block-diagonal mask computes all and throws it away, and no padding
is needed. transformers' own way (positions that restart, no mask) is used for models whose
attention can't be replaced, and padded rows for those that can't keep examples apart at all.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor

from versatune.modeling.losses import TokenLoss
from versatune.training.cpu_attention import LONGEST, SegmentAttention

logger = logging.getLogger(__name__)

NAME = "versatune_segments"

_WITHOUT_EFFECT = {
    "position_ids",
    "cache_position",
    "use_cache",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
}
"""What models hand to their attention and no attention reads."""

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
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Causal attention over each of ``segments``; query (rows, heads, columns, size).

    Without ``segments`` each row is one example. Returns (rows, columns, heads, size). Raises
    NotImplementedError for any more than that (a mask, a softcap, sinks, a bias, chosen keys):
    such attention stays transformers' own.
    """
    asked = {name for name, value in others.items() if value is not None} - _WITHOUT_EFFECT
    if asked or attention_mask is not None or is_causal is False:
        raise NotImplementedError(f"segments need plain causal attention: {sorted(asked)}")
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

    Autocast is left out: queries, turned by their positions, come in float32 there. Longer
    examples stay with the fused kernel, whose memory does not grow with the square.
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


def choose_layout(model: Any, packing: bool, longest: int) -> Layout:
    """The fastest layout that keeps the examples of this model apart; tried on a few tokens.

    ``longest``: tokens of the longest example there will be; a window or chunk of the model's
    attention is tried when an example can leave it. Sets the model's attention to go with the
    layout. Anything but what was asked for is logged.
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
    trials = [alone(model, lengths) for lengths in _lengths(model, longest)]
    for layout, attention in layouts:
        model.set_attn_implementation(attention)
        if all(keeps_apart(model, layout, trial) for trial in trials):
            return layout
    model.set_attn_implementation(own)
    logger.warning(
        "%s can't keep packed examples apart: training uses padded rows of like lengths.",
        type(model).__name__,
    )
    return "padded"


@dataclass(frozen=True)
class Alone:
    """Examples and the losses they have by themselves."""

    examples: tuple[Tensor, ...]
    """Each (1, tokens)."""
    losses: tuple[Tensor, ...]
    """Of each its nats at :func:`_tried`."""


def alone(model: Any, lengths: tuple[int, ...]) -> Alone:
    """What examples of these lengths get from the model with the attention it has now."""
    ids = torch.arange(sum(lengths), device=model.device)[None] * 7
    examples = (ids % model.config.get_text_config().vocab_size).split(lengths, dim=1)
    with _evaluating(model), torch.no_grad():
        loss = TokenLoss(model)
        losses = tuple(loss(x, at := _tried(x), x[0, at + 1]) for x in examples)
    return Alone(examples, losses)


def keeps_apart(model: Any, layout: Layout, trial: Alone) -> bool:
    """Whether examples packed in ``layout`` get the losses they get alone.

    The mean difference of an example counts, relative to 1 + loss: in bfloat16 another order of
    sums moves single losses by 3 %, and what an example must not see, or misses, moves most.
    """
    lengths = tuple(x.shape[1] for x in trial.examples)
    starts = (0, *accumulate(lengths[:-1]))
    ids = torch.cat(trial.examples, dim=1)
    at = torch.cat([_tried(x) + start for x, start in zip(trial.examples, starts, strict=True)])
    inputs: dict[str, Any] = {
        "position_ids": torch.cat([torch.arange(n) for n in lengths]).to(model.device)[None]
    }
    if layout == "flat":
        inputs["segments"] = lengths
    # With gradients, as in training: what attention by blocks is chosen by, up to its limit.
    with _evaluating(model), torch.set_grad_enabled(max(lengths) <= LONGEST):
        try:
            packed = TokenLoss(model)(ids, at, ids[0, at + 1], **inputs).detach()
        except (TypeError, NotImplementedError, ValueError) as error:
            logger.debug("%s, layout %s: %s", type(model).__name__, layout, error)
            return False
    close = 1e-4 if model.dtype == torch.float32 else 3e-2
    parts = packed.split([len(x) for x in trial.losses])
    return all(
        bool(((found - wanted).abs() / (1 + wanted)).mean() <= close)
        for found, wanted in zip(parts, trial.losses, strict=True)
    )


def _lengths(model: Any, longest: int) -> list[tuple[int, ...]]:
    """Of the examples tried together: short ones, and one that a window or chunk cuts."""
    config = model.config.get_text_config()
    reach = getattr(config, "sliding_window", None) or getattr(config, "attention_chunk_size", None)
    if not reach or longest <= reach:
        return [(5, 7)]
    return [(5, 7), (5, min(reach + 8, longest))]


def _tried(example: Tensor) -> Tensor:
    """The columns whose losses are compared: the last that predict a token, six at most."""
    last = example.shape[1] - 1
    return torch.arange(max(0, last - 6), last, device=example.device)


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
