"""Batched generation with models whose state reads padding.

Prompts of a batch are padded at their beginning. Attention leaves padding out by the mask; models
with a state (RWKV, RecurrentGemma) may read it like any other token, which changes the state.
Such models are asked one question at a time.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from versatune.modeling.influence import in_mode, plain_tokens

CPU_LOGITS = 2 * 10**8
"""Logits of a batch on a CPU, at most: 0.8 GB in float32, and the harness keeps three copies."""

MAX_BATCH = 64

CLOSE = 3e-2
"""How far logits may move with the padding, relative to 1 + their size: rounding in bfloat16."""


def reads_padding(model: Any) -> bool:
    """Whether a model's logits change with the tokens that the mask leaves out."""
    tokens = plain_tokens(model, 9)
    rows = torch.stack([torch.cat([tokens[at : at + 3], tokens[6:]]) for at in (0, 3)])
    mask = torch.ones_like(rows)
    mask[:, :3] = 0
    with in_mode(model, training=False), torch.no_grad():
        one, other = (
            model(input_ids=row[None], attention_mask=mask[:1], use_cache=False).logits[0, -1]
            for row in rows
        )
    return not bool(((one - other).abs() <= CLOSE * (1 + one.abs())).all())


def one_by_one(
    generate: Callable[..., Tensor], context: Tensor, mask: Tensor, max_length: int, pad: int
) -> Tensor:
    """What ``generate`` gives for each prompt without padding, as one batch.

    ``context``, ``mask``: shape (rows, columns), padded on the left; ``generate`` takes a row of
    each and ``max_length``, the columns to reach. Returns (rows, columns to the longest's end).
    """
    columns = context.shape[1]
    written = []
    for row, seen in zip(context, mask, strict=True):
        cut = columns - int(seen.sum())
        found = generate(row[None, cut:], seen[None, cut:], max_length - cut)
        written.append(found[0, columns - cut :])
    tails = torch.nn.utils.rnn.pad_sequence(written, batch_first=True, padding_value=pad)
    return torch.cat([context, tails], dim=1)


def batch_size(vocabulary: int, longest: int) -> int:
    """Rows in a batch on a CPU: as many as :data:`CPU_LOGITS` allows, at most MAX_BATCH.

    A rule and not a trial: a trial on a CPU uses up the machine's memory, and gives another number
    each time.
    """
    return max(1, min(MAX_BATCH, CPU_LOGITS // (vocabulary * longest)))
