"""Cross entropy of the next token, computed only where a token is supervised.

With a vocabulary of 50,000 and more the logits are the largest thing a step makes, and most of
them (prompt tokens, padding) are never read. :class:`TokenLoss` runs the decoder on everything,
picks the hidden states that predict a supervised token, and applies the head only to these.
"""

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from versatune.data.lengths import text_config
from versatune.errors import VersatuneError
from versatune.modeling.influence import first_line, in_mode, influences, plain_tokens

logger = logging.getLogger(__name__)

IGNORE = -100
"""The label of a token that is not supervised."""

_BLOCK, _BLOCK_ON_GPU = 1 << 22, 1 << 26
"""Logits turned into float32 at a time: 16 MB, which a CPU's caches hold, and 256 MB, large enough
that a GPU's time exceeds the launch overhead."""

_AT_ONCE = 1 << 28
"""Logits kept for the backward pass; beyond this they are made again in chunks."""


@dataclass(frozen=True)
class Targets:
    """What a batch of shape (rows, columns) is supervised on."""

    positions: npt.NDArray[np.int64]
    """Shape (n,): flat indices (row * columns + column) of the tokens that predict a target."""
    tokens: npt.NDArray[np.int64]
    """Shape (n,): the token to predict there."""

    @classmethod
    def of(cls, labels: npt.NDArray[np.integer[Any]]) -> "Targets":
        """The targets of ``labels`` (rows, columns), aligned with the input: ``-100`` elsewhere.

        The first column has no predecessor, so nothing predicts it.
        """
        rows, columns = np.nonzero(labels[:, 1:] != IGNORE)
        positions = rows * labels.shape[1] + columns
        return cls(positions.astype(np.int64), labels[rows, columns + 1].astype(np.int64))


class _CrossEntropy(torch.autograd.Function):
    """-log softmax(logits)[target] per row in float32, a block of rows at a time.

    The gradient, softmax(logits) - onehot(target), is made while the block is at hand and takes
    the place of the logits: they are read once, and nothing of their size is kept besides.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        block_size = _BLOCK if logits.device.type == "cpu" else _BLOCK_ON_GPU
        step = max(1, block_size // logits.shape[-1])
        losses = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
        for start in range(0, len(logits), step):
            part = slice(start, start + step)
            block = torch.log_softmax(logits[part], -1, dtype=torch.float32)
            own = block.gather(-1, targets[part, None])
            losses[part] = -own[:, 0]
            if ctx.needs_input_grad[0]:
                gradient = block.exp_().scatter_add_(1, targets[part, None], -torch.ones_like(own))
                logits[part] = gradient
        ctx.save_for_backward(logits)
        return losses

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        # In place: autograd refuses a second pass, whose saved tensor would be another one. In
        # bfloat16 the factor is rounded too, by up to 0.4 % and alike for all tokens of a batch;
        # a float32 factor takes four times as long.
        return gradient.mul_(gradients[0][:, None].to(gradient.dtype)), None


def cross_entropy_(logits: Tensor, targets: Tensor) -> Tensor:
    """Nats per row: logits (n, vocabulary) of any float type, targets (n,) -> float32 (n,).

    Logits that need a gradient are overwritten: pass what nothing else reads.
    """
    losses: Tensor = _CrossEntropy.apply(logits, targets)  # type: ignore[no-untyped-call]
    return losses


Way = Literal["apart", "columns", "whole"]
"""How the logits at some positions are computed: decoder and head called apart; the whole model
with ``logits_to_keep`` at the columns needed; the whole model with all its logits."""


class TokenLoss:
    """The per-token losses of one causal model.

    Which :data:`Way` gives the model's own logits is tried on a few tokens, not guessed: a model
    may do more to its logits than its head and the final softcap (a scale, say), and many take
    ``logits_to_keep`` and take no notice of it. Raises VersatuneError for a model that can't run
    as it is, and for one whose tokens see those that follow them.
    """

    def __init__(self, model: Any) -> None:
        from peft import PeftModel

        base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
        self.model: Any = base
        self.way: Way = "whole"
        self._softcap = getattr(text_config(base.config), "final_logit_softcapping", None)
        weight = getattr(base.get_output_embeddings(), "weight", None)
        # Taken now: DeepSpeed's ZeRO 3 leaves a weight of no rows where it divides one.
        self.vocabulary: int = (
            text_config(base.config).vocab_size if weight is None else weight.shape[0]
        )
        with in_mode(base, training=False):
            self.way = self._find_way()
            self._check_causal()
        if self.way != "apart":
            logger.info("%s: the loss goes through the whole model.", type(base).__name__)

    def __call__(
        self, input_ids: Tensor, positions: Tensor, targets: Tensor, **inputs: Any
    ) -> Tensor:
        """Nats per target, float32 (n,).

        ``input_ids`` (rows, columns); ``positions`` and ``targets`` as in :class:`Targets`;
        ``inputs`` go to the model (position_ids, attention_mask).
        """
        if self.way != "apart":
            return cross_entropy_(self._whole(input_ids, positions, inputs), targets)
        hidden = self._hidden(input_ids, positions, inputs)
        step = max(1, _AT_ONCE // self.vocabulary)
        parts = zip(hidden.split(step), targets.split(step), strict=True)
        if len(hidden) <= step or not torch.is_grad_enabled():
            return torch.cat([self._head(*part) for part in parts])
        return torch.cat([checkpoint(self._head, *part, use_reentrant=False) for part in parts])

    def prepared(
        self, input_ids: Tensor, positions: Tensor, **inputs: Any
    ) -> Callable[[slice], Tensor]:
        """Gives the logits of a part of ``positions``, shape (part, vocabulary), for measuring.

        The decoder's part of the work is done.
        """
        if self.way == "apart":
            hidden = self._hidden(input_ids, positions, inputs)
            return lambda part: self._logits(hidden[part])
        return self._whole(input_ids, positions, inputs).__getitem__

    def _hidden(self, input_ids: Tensor, positions: Tensor, inputs: dict[str, Any]) -> Tensor:
        hidden: Tensor = self.model.base_model(input_ids=input_ids, use_cache=False, **inputs)[0]
        return hidden.flatten(0, 1)[positions]

    def _logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.model.get_output_embeddings()(hidden)
        if self._softcap is not None:
            logits = torch.tanh(logits / self._softcap) * self._softcap
        return logits

    def _head(self, hidden: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy_(self._logits(hidden), targets)

    def _whole(self, input_ids: Tensor, positions: Tensor, inputs: dict[str, Any]) -> Tensor:
        forward, columns = type(self.model).forward, input_ids.shape[1]
        if self.way == "whole":
            logits = forward(self.model, input_ids=input_ids, use_cache=False, **inputs).logits
            whole: Tensor = logits.flatten(0, 1)[positions]
            return whole
        if len(input_ids) == 1:
            # In their order and each once (see Targets): a GPU need not wait to count them.
            kept, inverse = positions, torch.arange(len(positions), device=positions.device)
        else:
            kept, inverse = torch.unique(positions % columns, return_inverse=True)
        logits = forward(
            self.model, input_ids=input_ids, use_cache=False, logits_to_keep=kept, **inputs
        ).logits
        result: Tensor = logits[positions // columns, inverse]
        return result

    @torch.no_grad()
    def _find_way(self) -> Way:
        """The cheapest way that gives the model's own logits at some columns of two rows."""
        ids = plain_tokens(self.model, 16).view(2, 8)
        at = torch.tensor([2, 5, 8, 14], device=ids.device)
        try:
            own = self._whole(ids, at, {})
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise VersatuneError(
                f"{type(self.model).__name__} can't read plain text in "
                f"{str(self.model.dtype).removeprefix('torch.')} ({first_line(error)}): "
                "choose another dtype or another model."
            ) from error
        ways: dict[Way, Callable[[], Tensor]] = {
            "apart": lambda: self._logits(self._hidden(ids, at, {})),
            "columns": lambda: self._whole(ids, at, {}),
        }
        for self.way, logits in ways.items():
            with contextlib.suppress(*_UNSUITED):
                if _same(logits(), own):
                    return self.way
        return "whole"

    def _check_causal(self) -> None:
        """Refuse a model whose tokens see the tokens they predict: its losses are meaningless."""
        ids = plain_tokens(self.model, 8)[None]
        at = torch.arange(4, device=ids.device)
        target = ids[0, at + 1]
        with torch.no_grad():
            own = self(ids, at, target)
        if not own.isfinite().all():
            return  # a broken model, which shows in its losses
        try:
            seen = influences(self.model, ids, lambda: self(ids, at, target))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # it has no gradient in eval mode; training finds out
            logger.debug("%s: %s", type(self.model).__name__, first_line(error))
            seen = None
        if seen is not None:
            ahead = bool(seen[0, 4:].any())
        else:
            with torch.no_grad():
                other = torch.cat([ids[:, :4], ids[:, 4:].flip(1)], dim=1)
                # The last of the targets is the first token that is another one now.
                ahead = not _same(self(other, at, target), own)
        if ahead:
            raise VersatuneError(
                f"{type(self.model).__name__}: its tokens see the tokens that follow them, so it "
                "is no causal language model (with is_decoder: true in config.json some encoders "
                "become one): choose another model."
            )


_UNSUITED = (TypeError, ValueError, AttributeError, LookupError, RuntimeError)
"""What a model raises that can't be called in some way."""


def _same(found: Tensor, own: Tensor) -> bool:
    """Whether logits differ only by rounding, measured by their own size."""
    if found.shape != own.shape:
        return False
    close = 1e-5 if own.dtype == torch.float32 else 4e-3
    return bool((found.float() - own.float()).norm() <= close * own.float().norm())
