"""Which tokens a model's losses depend on, exactly.

A token that a loss does not depend on has a gradient of exactly 0 there, in any precision: masked
attention gives it a weight of exactly 0, and rounding makes no dependence where there is none. So
a gradient answers what a difference of losses can only suggest.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from versatune.data.lengths import text_config


def influences(model: Any, ids: Tensor, losses: Callable[[], Tensor]) -> Tensor | None:
    """Shape of ``ids``, true where the sum of what ``losses`` returns depends on that token.

    ``losses`` runs ``model`` on ``ids`` (rows, columns). None for a model that does not call its
    input embeddings on them.
    """
    with torch.enable_grad(), _watched(model) as leaves:
        total = losses().sum()
    # Some models go through their tokens column by column.
    shapes = (ids.shape, ids.T.shape)
    seen = [leaf for leaf in leaves if leaf.shape[:2] in shapes]
    if not seen:
        return None
    gradients = torch.autograd.grad(total, seen, allow_unused=True)
    found = torch.zeros(ids.shape, dtype=torch.bool, device=ids.device)
    for gradient in gradients:
        if gradient is not None:
            there = (gradient != 0).any(-1)
            found |= there if there.shape == ids.shape else there.T
    return found


def plain_tokens(model: Any, n: int, seed: int = 0) -> Tensor:
    """Shape (n,): tokens of the vocabulary that the configuration gives no role of their own."""
    special = _special(model.config) | _special(text_config(model.config))
    # Embeddings may have rows for more than tokens, and the vocabulary words without a row.
    rows, words = model.get_input_embeddings().weight.shape[0], text_config(model.config).vocab_size
    usable = [token for token in range(min(rows, words, 4096)) if token not in special]
    # One after another by a step that has no common divisor with their number: few repetitions.
    step = next(k for k in range(len(usable) * 5 // 8, 0, -1) if math.gcd(k, len(usable)) == 1)
    places = (torch.arange(n) + 1 + 17 * seed) * step % len(usable)
    return torch.tensor(usable)[places].to(model.device)


@contextmanager
def in_mode(model: Any, *, training: bool) -> Iterator[None]:
    """Training or eval mode for a while."""
    before = model.training
    model.train(training)
    try:
        yield
    finally:
        model.train(before)


def first_line(error: BaseException) -> str:
    """The type of an error and the first line of its message."""
    said = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


@contextmanager
def _watched(model: Any) -> Iterator[list[Tensor]]:
    """Puts a leaf in the place of the input embeddings of each call, and lists them."""
    leaves: list[Tensor] = []

    def watch(_module: Any, _given: Any, made: Tensor) -> Tensor:
        leaves.append(made.detach().requires_grad_())
        # A copy, since some models write into their embeddings.
        return leaves[-1].clone()

    handle = model.get_input_embeddings().register_forward_hook(watch)
    try:
        yield leaves
    finally:
        handle.remove()


def _special(config: Any) -> set[int]:
    """The numbers under keys such as ``pad_token_id``, ``image_token_index``."""
    found: set[int] = set()
    for key, value in config.to_dict().items():
        if "token_id" in key or "token_index" in key:
            found.update(
                v for v in (value if isinstance(value, list) else [value]) if v is not None
            )
    return found
