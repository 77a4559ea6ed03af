"""A decoding loop for many short sequences that all begin with the same token.

Where the time of batched ``generate`` goes, measured with a 135M model, 256 rows and 128 tokens
on two cores: drawing one random number for each of rows x vocabulary entries; copying the whole
key-value cache at each step to append a column; attention kernels made for long queries. Here a
row draws **one** number a step and looks it up in the cumulated probabilities; the cache lies in
place and grows by chunks; and a step of decoding is two batched matrix products a layer. On a CPU
that is 1.3 times as fast as the same loop over transformers' DynamicCache and attention, and 1.4
times ``generate`` with a static cache (docs/probe.md): why it is kept beside these.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from versatune.modeling.caching import alike
from versatune.modeling.influence import first_line, plain_tokens
from versatune.samplers.config import SamplingParams
from versatune.samplers.turn_taking import Conversations

logger = logging.getLogger(__name__)

ATTENTION = "versatune_decode"
CHUNK = 32
"""Columns the cache grows by: each chunk costs one copy of what is there."""
BLOCK = 256
"""Vocabulary entries summed at once before the exact entry is looked for."""
TRIED = 6
"""Tokens of the texts on which steps are tried."""
_NEEDS_SDPA = ("softcap", "s_aux", "position_bias", "sliding_window")


def filtered(logits: torch.Tensor, seen: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """Float32 logits (rows, vocabulary) after penalty, temperature, top-k and top-p.

    ``seen``: token ids so far (rows, length). The order and the meaning are those of
    transformers' ``generate``.
    """
    logits = logits.float()
    if (p := params.repetition_penalty) != 1:
        score = logits.gather(1, seen)
        logits = logits.scatter(1, seen, torch.where(score < 0, score * p, score / p))
    if params.temperature != 1:
        logits = logits / params.temperature
    if params.top_k:
        kth = logits.topk(min(params.top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if params.top_p < 1:
        ordered, order = logits.sort(descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        drop = torch.zeros_like(logits, dtype=torch.bool)
        drop.scatter_(1, order, before >= params.top_p)
        logits = logits.masked_fill(drop, -torch.inf)
    return logits


@dataclass(frozen=True)
class Batch:
    """The inputs for drawing a batch of sequences."""

    uniforms: np.ndarray
    """(rows, limit): each row's own random numbers, one a token."""
    ends: set[int]
    """The tokens that end a sequence."""
    params: SamplingParams = field(default_factory=SamplingParams)
    """What distorts the distribution before a token is drawn; by default nothing does."""
    turns: Conversations | None = None
    """When a row continues with tokens of the template, and when it has ended."""


Drawn = tuple[int, list[int], bool]
"""A row, its tokens without start and end, whether the model ended it."""


@torch.inference_mode()
def draw(logits: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """One token a row by the inverse of the distribution function, in the vocabulary's order.

    ``logits`` (rows, vocabulary) float32, used up; ``uniforms`` (rows,) float64 in [0, 1).
    Sums are taken block by block and then inside the one block that holds the number, so that
    a step costs one pass over the logits and a single random number a row.
    """
    rows, vocabulary = logits.shape
    weights = logits.sub_(logits.amax(-1, keepdim=True)).exp_()
    if vocabulary % BLOCK:
        weights = torch.nn.functional.pad(weights, (0, -vocabulary % BLOCK))
    blocks = weights.view(rows, -1, BLOCK)
    ends = blocks.sum(-1).cumsum(-1, dtype=torch.float64)
    target = uniforms[:, None] * ends[:, -1:]
    which = torch.searchsorted(ends, target, right=True).clamp_max_(ends.shape[1] - 1)
    before = torch.where(which > 0, ends.gather(1, (which - 1).clamp_min(0)), 0.0)
    inside = blocks[torch.arange(rows, device=logits.device), which[:, 0]]
    steps = inside.double().cumsum(-1)
    place = torch.searchsorted(steps, target - before, right=True)
    # rounding may put the number past the block's last entry: take the last with any mass
    last = BLOCK - 1 - (inside > 0).flip(1).int().argmax(1, keepdim=True)
    return which * BLOCK + torch.minimum(place, last)


class GrowingLayer(CacheLayerMixin):
    """Keys and values of a layer in place, in a buffer that grows by :data:`CHUNK` columns."""

    def __init__(self, limit: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.limit = limit
        self.length = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = self._larger(key_states[:, :, :0])
        self.values = self._larger(value_states[:, :, :0])
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new columns; returns views of all columns so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        end = self.length + key_states.shape[2]
        while end > self.keys.shape[2]:
            self.keys, self.values = self._larger(self.keys), self._larger(self.values)
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Drop all rows but these."""
        assert self.keys is not None and self.values is not None
        self.keys, self.values = self.keys[indices], self.values[indices]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1

    def _larger(self, old: torch.Tensor) -> torch.Tensor:
        rows, heads, columns, width = old.shape
        grown = old.new_zeros((rows, heads, min(columns + CHUNK, self.limit), width))
        grown[:, :, :columns] = old
        return grown


def decode_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one new token over a :class:`GrowingLayer`: two batched products.

    Anything else than a single query without a mask goes to transformers' SDPA. ``key`` and
    ``value`` are views of the layer's buffer; the products run over the whole buffer, which is
    contiguous, and the columns not yet written are masked.
    """
    rows, heads, length, width = query.shape
    special = any(kwargs.get(name) is not None for name in _NEEDS_SDPA)
    if length != 1 or attention_mask is not None or special or key.is_cuda:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
    groups, columns = key.shape[1], key.shape[2]
    scale = width**-0.5 if scaling is None else scaling
    keys, values = _buffer(key), _buffer(value)
    scores = torch.bmm(query.reshape(rows * groups, -1, width), keys.transpose(1, 2))
    scores = scores.float().mul_(scale)
    scores[:, :, columns:] = -torch.inf
    mixed = torch.bmm(scores.softmax(-1).to(values.dtype), values)
    return mixed.view(rows, 1, heads, value.shape[-1]), None


def _buffer(view: torch.Tensor) -> torch.Tensor:
    """The whole buffer below a view of its first columns: (rows * heads, capacity, width)."""
    rows, heads, _, width = view.shape
    capacity = view.stride(1) // view.stride(2)
    return view.as_strided((rows * heads, capacity, width), (capacity * width, width, 1))


class Decoder:
    """Steps a batch of sequences that all have the same length, dropping rows that end.

    The steps must give the logits of the whole text at once, which is tried on the model: with the
    fast cache, then with transformers' own. Where neither does (models with a state keep it
    elsewhere), every step reads the whole text.
    """

    def __init__(self, model: PreTrainedModel, start: list[int], limit: int) -> None:
        self.model = model
        self.start = start
        self.limit = max(limit + len(start), TRIED)
        own = model.config._attn_implementation
        self.fast = _plain_attention(model)
        if self.fast:
            AttentionInterface.register(ATTENTION, decode_attention)
            model.set_attn_implementation(ATTENTION)
            if self._steps_agree():
                return
            model.set_attn_implementation(own)
            self.fast = False
        self.whole = not self._steps_agree()
        if self.whole:
            logger.info("%s is sampled without a cache, which takes longer.", type(model).__name__)

    whole = False
    """Whether each step reads the whole text."""

    def sample(self, batch: Batch) -> Iterator[Drawn]:
        """Draw a batch; rows come as they finish, and those that reach the limit last.

        Ended rows leave the batch once an eighth of it has ended.
        """
        device, turns = self.model.device, batch.turns
        rows, limit = batch.uniforms.shape
        numbers = torch.from_numpy(batch.uniforms).to(device)
        ends = torch.tensor(sorted(batch.ends), device=device)
        tokens = torch.empty((rows, len(self.start) + limit), dtype=torch.long, device=device)
        tokens[:, : len(self.start)] = torch.tensor(self.start, device=device)
        names = torch.arange(rows, device=device)
        alive = torch.ones(rows, dtype=torch.bool, device=device)
        cache = self._cache()
        for place in range(len(self.start)):
            logits = self._step(tokens[:, : place + 1], cache)
        for step in range(limit):
            place = len(self.start) + step
            logits = filtered(logits, tokens[:, :place], batch.params)
            tokens[:, place] = draw(logits, numbers[names, step])[:, 0]
            if turns is None:
                over = alive & torch.isin(tokens[:, place], ends)
            else:
                went, ended = turns.steer(names.tolist(), tokens[:, place].tolist())
                tokens[:, place] = torch.tensor(went, device=device)
                over = alive & torch.tensor(ended, device=device)
            alive &= ~over
            for row in over.nonzero()[:, 0].tolist():
                yield int(names[row]), tokens[row, len(self.start) : place].tolist(), True
            left = int(alive.sum())
            if left == 0 or step == limit - 1:
                break
            if left <= len(alive) * 7 // 8:
                kept = alive.nonzero()[:, 0]
                tokens, names, alive = tokens[kept], names[kept], alive[kept]
                if cache is not None:
                    cache.batch_select_indices(kept)
            logits = self._step(tokens[:, : place + 1], cache)
        for row in alive.nonzero()[:, 0].tolist():
            yield int(names[row]), tokens[row, len(self.start) :].tolist(), False

    def _cache(self) -> Cache | None:
        if self.whole:
            return None
        if not self.fast:
            return DynamicCache(config=self.model.config)
        layers = self.model.config.get_text_config(decoder=True).num_hidden_layers
        return Cache(layers=[GrowingLayer(self.limit) for _ in range(layers)])

    def _step(self, tokens: torch.Tensor, cache: Cache | None) -> torch.Tensor:
        """Logits behind ``tokens`` (rows, length), of which the cache has all but the last."""
        asked: dict[str, Any] = {"input_ids": tokens, "use_cache": False}
        if cache is not None:
            last = tokens[:, -1:]
            asked = {"input_ids": last, "past_key_values": cache, "use_cache": True}
        with torch.inference_mode():
            result: torch.Tensor = self.model(**asked, logits_to_keep=1).logits[:, -1]
            return result

    def _steps_agree(self) -> bool:
        """Whether steps with the cache, a row dropped on the way, are what a whole text gives."""
        tokens = plain_tokens(self.model, 3 * TRIED).view(3, TRIED)
        kept = torch.tensor([0, 2], device=tokens.device)
        try:
            cache = self._cache()
            assert cache is not None
            for place in range(TRIED // 2):
                self._step(tokens[:, : place + 1], cache)
            cache.batch_select_indices(kept)
            for place in range(TRIED // 2, TRIED):
                logits = self._step(tokens[kept, : place + 1], cache)
            return alike(logits, self._step(tokens[kept], None))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            logger.debug("%s: %s", type(self.model).__name__, first_line(error))
            return False


def _plain_attention(model: PreTrainedModel) -> bool:
    """Whether all layers attend to all that came before, by transformers' SDPA."""
    config = model.config.get_text_config(decoder=True)
    layers = DynamicCache(config=config).layers
    plain = bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
    return plain and config._attn_implementation == "sdpa"
