"""Tests whether a model generates the same with a cache as without.

A cache holds what a model has read, so that each new token costs one step. Some models can't make
the one they are given (transformers' needs a layer of attention to count tokens), and some read
past it as if nothing had been before (a state has no place in a cache of keys and values). Then
each token is written after reading the whole text again.
"""

import logging
from typing import Any

import torch
from torch import Tensor

from versatune.modeling.influence import first_line, in_mode, plain_tokens

logger = logging.getLogger(__name__)

CLOSE = 3e-2
"""How far logits may lie apart on average, relative to 1 + their size: rounding in bfloat16. A
model that loses its context differs by tenths."""

_READ, _WRITTEN = 4, 4
"""Tokens of the text that is tried."""


def alike(found: Tensor, wanted: Tensor) -> bool:
    """Whether logits are the same up to rounding; NaN is not."""
    found, wanted = found.float(), wanted.float()
    return bool((found - wanted).abs().mean() <= CLOSE * (1 + wanted.abs().mean()))


def generates_with_cache(model: Any) -> bool:
    """Whether ``model.generate`` gives the model's own logits with a cache."""
    from transformers import GenerationConfig

    ids = plain_tokens(model, _READ)[None]
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=_WRITTEN,
        use_cache=True,
        output_logits=True,
        return_dict_in_generate=True,
        pad_token_id=int(ids[0, 0]),
    )
    try:
        with in_mode(model, training=False), torch.no_grad():
            mask = torch.ones_like(ids)
            made = model.generate(ids, attention_mask=mask, generation_config=settings)
            whole = model(input_ids=made.sequences, use_cache=False).logits[0, _READ - 1 : -1]
            agrees = alike(torch.cat(made.logits), whole)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        logger.debug("%s with a cache: %s", type(model).__name__, first_line(error))
        agrees = False
    if not agrees:
        logger.info("%s generates without a cache, which takes longer.", type(model).__name__)
    return agrees
