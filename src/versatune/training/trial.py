"""Whether a layout keeps packed examples apart: tried on the model, before training.

A trial runs where the model trains: on its device, in its precision, on batches as the collator
makes them. A layout passes when

- the loss of an example depends on no token of another one. A gradient of exactly 0 says so in any
  precision, in training mode (:mod:`versatune.modeling.influence`);
- other tokens in the examples before leave an example's losses as they were;
- each example has the losses it has alone, under the model's own attention.

Precision lets the last two be decided only to rounding, and bfloat16's hides small faults. So
they are decided a second time in float32, in which the weights are held for a moment.
"""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import accumulate
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from versatune.data.lengths import text_config
from versatune.modeling.influence import first_line, in_mode, influences, plain_tokens
from versatune.modeling.losses import IGNORE, TokenLoss
from versatune.training.batches import Collator, Layout
from versatune.training.cpu_attention import LONGEST

logger = logging.getLogger(__name__)

EXACT, ROUNDED = 1e-4, 3e-2
"""How far losses may differ, as mean difference relative to 1 + loss: in float32, in others."""

LONG = 512
"""Tokens of the longest example tried, more where the model's configuration names a reach."""

_REACH = ("window", "chunk", "block_size", "topk", "top_k", "local_attention")
"""Parts of the names of configuration values that limit how far a token sees: short examples don't
show it."""

_COMPARED = 6
"""Losses of an example that are compared: its last ones, which have the most before them."""

Rows = list[list[np.ndarray]]
"""Packed rows, each the token ids of its examples."""


class Trial:
    """Examples that layouts are tried on, and what they get alone from the model as it is now.

    ``longest``: tokens of the longest example there will be. ``bf16``: whether training computes
    under autocast. Raises VersatuneError for a model that can't be trained in any layout.
    """

    def __init__(self, model: Any, longest: int, *, bf16: bool = False) -> None:
        self.model, self.bf16 = model, bf16
        self.rows = [self._tokens(lengths) for lengths in _lengths(model, longest)]
        with self._own_randomness():
            self.loss = TokenLoss(model)
            self.rounded = [self._alone(rows) for rows in self.rows]
            self.exact = self._alone_in_float32()

    def fault(self, layout: Layout) -> str | None:
        """Why the model can't be trained in ``layout`` with its present attention; None if it
        can."""
        with self._own_randomness():
            try:
                found = self._leak(layout)
                # Noise grows with depth: where float32 decides, the last resort needn't pass here.
                if found is None and not (layout == "padded" and self.exact is not None):
                    found = self._differs(layout, self.rounded)
                if found is None and self.exact is not None:
                    with in_float32(self.model):
                        found = self._differs(layout, self.exact, exact=True)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                # A model that does not take a layout raises whatever its code happens to.
                found = first_line(error)
        if found is not None:
            logger.debug("%s, layout %s: %s", type(self.model).__name__, layout, found)
        return found

    def _leak(self, layout: Layout) -> str | None:
        """Whether an example's loss depends on a token of another one, by gradients."""
        batch, owner, token_owner = self._batch(layout, self.rows[0])
        for example in range(int(owner.max()) + 1):

            def losses(mine: Tensor = owner == example) -> Tensor:
                torch.manual_seed(0)
                with self._precision():
                    return self.loss(**batch)[mine]

            with in_mode(self.model, training=True):
                seen = influences(self.model, batch["input_ids"], losses)
            if seen is not None and bool((seen & (token_owner != example)).any()):
                return "the loss of an example depends on another one"
        return None

    def _differs(
        self, layout: Layout, alone: list[list[Tensor]], *, exact: bool = False
    ) -> str | None:
        """Whether an example's losses change when packed, or with another example before it."""
        close = EXACT if exact or self._dtype() == torch.float32 else ROUNDED
        for rows, wanted in zip(self.rows, alone, strict=True):
            found = self._losses(layout, rows, exact=exact)
            if not _near(found, wanted, close):
                return "an example has other losses than alone"
            other = plain_tokens(self.model, len(rows[0][0]), seed=1).cpu().numpy()
            moved = self._losses(layout, [[other, *rows[0][1:]], *rows[1:]], exact=exact)
            if not _near(moved[1:], found[1:], close):
                return "an example's losses change with the example before it"
        return None

    def _losses(self, layout: Layout, rows: Rows, *, exact: bool) -> list[Tensor]:
        """The compared losses of each example in a batch, in eval mode."""
        batch, owner, _ = self._batch(layout, rows)
        # With gradients, as in training: what attention by blocks is chosen by, up to its limit.
        short = max(len(x) for row in rows for x in row) <= LONGEST
        precision = nullcontext() if exact else self._precision()
        with in_mode(self.model, training=False), torch.set_grad_enabled(short), precision:
            nats = self.loss(**batch).detach()
        return [nats[owner == example] for example in range(int(owner.max()) + 1)]

    def _alone(self, rows: Rows, *, exact: bool = False) -> list[Tensor]:
        """The compared losses of each example alone, without a mask."""
        found = []
        with in_mode(self.model, training=False), torch.no_grad():
            for example in (x for row in rows for x in row):
                ids = torch.from_numpy(example).to(self.model.device)[None]
                at = torch.arange(len(example) - 1, device=ids.device)[-_COMPARED:]
                with nullcontext() if exact else self._precision():
                    found.append(self.loss(ids, at, ids[0, at + 1]))
        return found

    def _alone_in_float32(self) -> list[list[Tensor]] | None:
        """The same in float32; None where training is in float32 itself, or memory has no room."""
        in_4_bits = any(not p.is_floating_point() for p in self.model.parameters())
        if self._dtype() == torch.float32 or in_4_bits or not _has_room(self.model):
            return None
        try:
            with in_float32(self.model):
                return [self._alone(rows, exact=True) for rows in self.rows]
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # kernels made only for half precision
            logger.debug("%s in float32: %s", type(self.model).__name__, first_line(error))
            return None

    def _batch(self, layout: Layout, rows: Rows) -> tuple[dict[str, Any], Tensor, Tensor]:
        """A batch of training; of which example each of its targets is, and each of its tokens.

        Tokens of padding are of none (-1).
        """
        numbers = iter(range(sum(map(len, rows))))
        named = [[(next(numbers), x) for x in row] for row in rows]
        if layout == "padded":
            named = [[example] for row in named for example in row]
        batch = Collator(layout)([_packed(row) for row in named])
        marked = [[(n, np.full_like(x, n + 1)) for n, x in row] for row in named]
        tokens = Collator(layout)([_packed(row) for row in marked])["input_ids"] - 1
        device = self.model.device
        batch = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
        return batch, batch.pop("domains"), tokens.to(device)

    def _tokens(self, lengths: list[list[int]]) -> Rows:
        tokens = plain_tokens(self.model, sum(map(sum, lengths))).cpu().numpy()
        parts = iter(np.split(tokens, list(accumulate(n for row in lengths for n in row))))
        return [[next(parts) for _ in row] for row in lengths]

    def _precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.bf16)

    def _dtype(self) -> torch.dtype:
        """What training computes in."""
        return torch.bfloat16 if self.bf16 else self.model.dtype

    def _own_randomness(self) -> AbstractContextManager[Any]:
        """Training draws the same numbers whatever was tried before."""
        device = self.model.device
        return torch.random.fork_rng([device] if device.type == "cuda" else [])


@contextmanager
def on_device(model: Any, device: torch.device) -> Iterator[None]:
    """The model on the device that trains for a while, if that holds it whole.

    It comes back because Trainer places it: whole, or divided over processes.
    """
    home = model.device
    if home == device:  # weights in 4 bits are loaded there
        yield
        return
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    if device.type == "cuda" and torch.cuda.mem_get_info(device)[0] < 1.2 * size:
        logger.warning("Layouts are tried on the CPU: %s has no room for the whole model.", device)
        device = home
    model.to(device)
    try:
        yield
    finally:
        model.to(home)


@contextmanager
def in_float32(model: Any) -> Iterator[None]:
    """The weights of ``model`` in float32 for a while; afterwards they are restored bit by bit."""
    tensors = [t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]
    kept = [(t, t.dtype) for t in tensors if t.dtype != torch.float32]
    for tensor, _ in kept:
        tensor.data = tensor.data.float()
    try:
        yield
    finally:
        for tensor, dtype in kept:
            tensor.data = tensor.data.to(dtype)


def _has_room(model: Any) -> bool:
    """Whether memory holds the weights in float32."""
    more = sum(p.numel() * (4 - p.element_size()) for p in model.parameters())
    if model.device.type == "cuda":
        return bool(torch.cuda.mem_get_info(model.device)[0] > 1.2 * more)
    return bool(psutil.virtual_memory().available > 1.2 * more)


def _lengths(model: Any, longest: int) -> list[list[list[int]]]:
    """Of the examples of packed rows tried together: short ones, then one of a length that there
    will be, which windows, chunks and choices of keys cut and states forget."""
    short = [[5, 7], [6]]
    config = text_config(model.config).to_dict()
    reaches = [
        value
        for key, value in config.items()
        if isinstance(value, int) and any(part in key for part in _REACH) and value < longest
    ]
    long = min(longest, max(LONG, max(reaches, default=0) + 8))
    return [short, [[7, long, 5]]] if long > 7 else [short]


def _packed(row: list[tuple[int, np.ndarray]]) -> dict[str, Any]:
    """What the collator takes, with the number of an example for its domain."""
    return {
        "input_ids": [x for _, x in row],
        "labels": [
            np.where(np.arange(len(x)) < max(1, len(x) - _COMPARED), IGNORE, x) for _, x in row
        ],
        "domains": np.array([number for number, _ in row]),
    }


def _near(found: list[Tensor], wanted: list[Tensor], close: float) -> bool:
    return all(
        bool(((f - w).abs() / (1 + w)).mean() <= close) for f, w in zip(found, wanted, strict=True)
    )
