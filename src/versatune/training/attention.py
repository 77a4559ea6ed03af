"""Attention that stays inside each packed example, and the choice of a model's layout.

Packed examples are laid end to end in one row; ``seq_lens`` (their lengths) goes through the model
to the attention, which runs causally over each example alone. Nothing is computed across examples
(a block-diagonal mask would compute it and throw it away), and no padding is needed. transformers'
own way (positions that restart, no mask) is used for models whose attention can't be replaced, on a
GPU by FlexAttention; and padded rows for those that can't keep examples apart at all.
"""

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from versatune.errors import VersatuneError
from versatune.training import varlen
from versatune.training.batches import Layout
from versatune.training.cpu_attention import LONGEST, SegmentAttention
from versatune.training.trial import Trial

logger = logging.getLogger(__name__)

NAME = "versatune_varlen"

FLEX = "flex_attention"
"""transformers' FlexAttention: softcap, sinks and chunks, with a mask by blocks of tokens."""

_WITHOUT_EFFECT = {
    "position_ids",
    "cache_position",
    "use_cache",
    "logits_to_keep",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
}
"""Arguments that models pass to their attention and that no attention reads."""


def segment_attention(
    _module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    seq_lens: tuple[int, ...] | None = None,
    starts: Tensor | None = None,
    longest: int | None = None,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Causal attention over each of ``seq_lens``; query (rows, heads, columns, size).

    ``starts`` (see :func:`varlen.attend`) are where they begin, for the kernel of a GPU; in batches
    of one shape they come with ``longest``, a bound of the lengths, in place of ``seq_lens``.
    Without all of these each row is one example. Returns (rows, columns, heads, size). Raises
    NotImplementedError for any more than that (a mask, a softcap, sinks, a bias, chosen keys):
    such attention stays transformers' own.
    """
    asked = {name for name, value in others.items() if value is not None} - _WITHOUT_EFFECT
    if asked or attention_mask is not None or is_causal is False:
        raise NotImplementedError(f"seq_lens need plain causal attention: {sorted(asked)}")
    if starts is not None and (seq_lens is not None or longest is not None):
        q, k, v = _autocast(query, key, value)
        if varlen.takes(q, dropout):
            most = longest if longest is not None else max(seq_lens or ())
            scale = scaling or query.shape[-1] ** -0.5
            return varlen.attend(q, k, v, starts, most, sliding_window, scale), None
        if seq_lens is None:
            return _apart(query, key, value, starts, dropout, scaling, sliding_window), None
    lengths = seq_lens or (query.shape[2],)
    return _each(query, key, value, lengths, dropout, scaling, sliding_window), None


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _apart(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: Tensor,
    dropout: float,
    scaling: float | None,
    window: int | None,
) -> Tensor:
    """Attention over each example without the kernel: compiled code does not see the lengths,
    which differ from step to step. They are read from ``starts``, for which a GPU waits."""
    lengths = tuple(n for n in starts.diff().tolist() if n)
    return _each(query, key, value, lengths, dropout, scaling, window)


def _each(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: tuple[int, ...],
    dropout: float,
    scaling: float | None,
    sliding_window: int | None,
) -> Tensor:
    """One example after the other, or their blocks together, see ``cpu_attention``."""
    longest = max(lengths)
    if _by_blocks(query, longest) and not dropout:
        scale = scaling or query.shape[-1] ** -0.5
        cut = sliding_window is not None and longest > sliding_window
        window = sliding_window if cut else None
        out = SegmentAttention.apply(query[0], key[0], value[0], lengths, window, scale)  # type: ignore[no-untyped-call]
        result: Tensor = out[None]
        return result
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key = key.repeat_interleave(groups, dim=1)
        value = value.repeat_interleave(groups, dim=1)
    parts = [
        _attend(q, k, v, sliding_window, dropout, scaling).transpose(1, 2)
        for q, k, v in zip(*(x.split(lengths, dim=2) for x in (query, key, value)), strict=True)
    ]
    return torch.cat(parts, dim=1)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window: int | None,
    dropout: float,
    scaling: float | None,
) -> Tensor:
    """Causal attention over one example, each (rows, heads, length, size)."""
    mask, length = None, query.shape[2]
    if window is not None and length > window:
        at = torch.arange(length, device=query.device)
        distance = at[:, None] - at[None, :]  # of a token (row) from the one it looks at (column)
        mask = (distance >= 0) & (distance < window)
    return torch.nn.functional.scaled_dot_product_attention(
        query, key, value, mask, dropout, is_causal=mask is None, scale=scaling
    )


def _autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """``tensors`` in the type that autocast computes in; queries and keys, turned by their
    positions, come in float32."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    return tuple(x.to(torch.get_autocast_dtype(device)) for x in tensors)


def _by_blocks(query: Tensor, longest: int) -> bool:
    """Whether there is a faster way than the fused kernel, see ``cpu_attention``.

    Autocast is left out: queries, turned by their positions, come in float32 there. Longer
    examples stay with the fused kernel, whose memory does not grow with the square.
    """
    on_cpu = query.device.type == "cpu" and query.dtype == torch.bfloat16
    return on_cpu and torch.is_grad_enabled() and len(query) == 1 and longest <= LONGEST


@dataclass(frozen=True)
class Candidate:
    """A layout and the attention it goes with, by transformers' name."""

    layout: Layout
    attention: str


def candidates(model: Any, packing: bool) -> list[Candidate]:
    """The layouts to try, the fastest first; the last resort is one example a row."""
    # No mask function beside it: transformers then makes no mask, and needs no look at the
    # positions, for which a GPU would have to wait.
    AttentionInterface.register(NAME, segment_attention)
    own = model.config._attn_implementation
    found = [Candidate("padded", own)]
    if packing:
        found.insert(0, Candidate("position_ids", own))
        if flexible(model):
            found.insert(0, Candidate("position_ids", FLEX))
        if own.startswith("flash"):
            decoder = getattr(model, "get_base_model", lambda: model)().base_model
            decoder.register_forward_pre_hook(_in_flash_words, with_kwargs=True)
            found.insert(0, Candidate("varlen", own))
        elif model._supports_attention_backend:
            found.insert(0, Candidate("varlen", NAME))
    return found


def _in_flash_words(
    model: Any, args: tuple[Any, ...], given: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Where the examples begin, in the words of transformers' flash attention.

    Without them it finds them by the positions, in every layer, and a GPU waits for each.
    """
    if "starts" not in given or not model.config._attn_implementation.startswith("flash"):
        return None
    starts, seq_lens = given.pop("starts"), given.pop("seq_lens", None)
    longest = given.pop("longest", None)
    most = longest if longest is not None else max(seq_lens or ())
    given |= {"cu_seq_lens_q": starts, "cu_seq_lens_k": starts}
    given |= {"max_length_q": most, "max_length_k": most}
    return args, given


def flexible(model: Any) -> bool:
    """Whether FlexAttention is worth a trial: its kernel with gradients is made only for GPUs."""
    return bool(model.device.type == "cuda" and model._supports_flex_attn)


def choose_layout(model: Any, packing: bool, longest: int, *, bf16: bool = False) -> Layout:
    """The fastest layout that keeps the examples of this model apart, see ``trial``.

    ``longest``: tokens of the longest example there will be; ``bf16``: whether training computes
    under autocast. The model is tried on the device it is on, and left with the attention that
    goes with the layout. All processes of a training choose alike. Raises VersatuneError when the
    model can't be trained in any layout; any other layout than the one asked for is logged.
    """
    own = model.config._attn_implementation
    found = candidates(model, packing)
    trial = Trial(model, longest, bf16=bf16)
    name = type(trial.loss.model).__name__
    fault, at = None, 0
    for at, candidate in enumerate(found):  # noqa: B007
        model.set_attn_implementation(candidate.attention)
        if (fault := trial.fault(candidate.layout)) is None:
            break
    if fault is not None:
        model.set_attn_implementation(own)
        raise VersatuneError(
            f"{name} can't be trained, not even with one example a row: {fault}. "
            "Choose another dtype or another model."
        )
    chosen = found[_latest(at)]
    model.set_attn_implementation(chosen.attention)
    if packing and chosen.layout == "padded":
        logger.warning(
            "%s can't keep packed examples apart: training uses padded rows of like lengths.",
            name,
        )
    return chosen.layout


def _latest(choice: int) -> int:
    """The last of the choices of all processes: what passed on every device."""
    if not torch.distributed.is_initialized():
        return choice
    choices: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(choices, choice)
    return int(max(choices))
