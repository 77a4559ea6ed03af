"""How far a trained model has moved from its base, on texts of the base's own.

KL(base || trained) of the next token, summed over the vocabulary at each position of a text and
averaged over positions. On texts that the base model wrote itself, this is its divergence from the
trained model per token, measured without a label.

Sources: Kullback and Leibler (1951); that forgetting follows this divergence: Shenfeld et al.,
"RL's Razor" (arXiv 2509.04259).
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from versatune.modeling.heldout import ON_CPU, ON_OTHERS, batches, pad
from versatune.modeling.influence import in_mode
from versatune.modeling.losses import Targets, TokenLoss
from versatune.work import bars

_BLOCK = 1 << 22
"""Logits of each model turned into float32 at a time (16 MB)."""


def kl_divergence(base: Tensor, trained: Tensor) -> Tensor:
    """KL(softmax(base) || softmax(trained)) of each row in float32, never below 0.

    sum_v p_v (ln p_v - ln q_v); both shape (n, vocabulary), of any float type; result (n,).
    Raises ValueError on different shapes.
    """
    if base.shape != trained.shape:
        raise ValueError(f"logits of shapes {tuple(base.shape)} and {tuple(trained.shape)}")
    log_p = torch.log_softmax(base, -1, dtype=torch.float32)
    log_q = torch.log_softmax(trained, -1, dtype=torch.float32)
    # Where p is 0, 0 times an infinite difference counts as 0.
    found = torch.where(log_p.isneginf(), 0.0, log_p.exp() * (log_p - log_q)).sum(-1)
    return found.clamp_min(0.0)


@torch.no_grad()
def text_drift(
    base: Any,
    trained: Any,
    texts: Sequence[npt.NDArray[np.integer[Any]]],
    batch_tokens: int | None = None,
) -> npt.NDArray[np.float64]:
    """Shape (texts, 2): summed nats of KL(base || trained), and its positions, of each text.

    ``texts``: token ids, at least two each; the first token of a text is given, and every other is
    a position. ``base`` None: ``trained`` has adapters, and is its own base without them. Both
    models run on every batch, the logits of a block of positions at a time, so that nothing of the
    size of texts x vocabulary is kept. Raises ValueError on a text with nothing to predict.
    """
    short = [number for number, ids in enumerate(texts) if len(ids) < 2]
    if short:
        raise ValueError(f"text {short[0]} has {len(texts[short[0]])} tokens: nothing to predict")
    device = next(trained.parameters()).device
    if batch_tokens is None:
        batch_tokens = ON_CPU if device.type == "cpu" else ON_OTHERS
    sums = np.zeros((len(texts), 2))
    lengths = np.array([len(ids) for ids in texts], dtype=np.int64)
    sums[:, 1] = lengths - 1
    base_mode = contextlib.nullcontext() if base is None else in_mode(base, training=False)
    with in_mode(trained, training=False), base_mode:
        ends = _Models(base, trained)
        parts = batches(lengths, batch_tokens)
        for part in bars.each(parts, len(parts), "measuring drift", "batches"):
            ids, labels = pad([{"input_ids": texts[i], "labels": texts[i]} for i in part])
            at = Targets.of(labels).positions
            given = (torch.from_numpy(x).to(device) for x in (ids, at))
            found = ends.divergence(*given).double().cpu().numpy()
            np.add.at(sums[:, 0], part[at // ids.shape[1]], found)
    return sums


class _Models:
    """The two models' logits at the same positions."""

    def __init__(self, base: Any, trained: Any) -> None:
        self._adapted = trained if base is None else None
        self._trained = TokenLoss(trained)
        with self._without_adapters():
            self._base = TokenLoss(trained if base is None else base)

    def divergence(self, ids: Tensor, positions: Tensor) -> Tensor:
        """KL at each of ``positions`` (flat indices into ``ids``), float32 (n,)."""
        with self._without_adapters():
            before = self._base.prepared(ids, positions)
        after = self._trained.prepared(ids, positions)
        size = max(1, _BLOCK // self._base.vocabulary)
        found = []
        for start in range(0, len(positions), size):
            part = slice(start, start + size)
            with self._without_adapters():
                own = before(part)
            found.append(kl_divergence(own, after(part)))
        return torch.cat(found)

    def _without_adapters(self) -> contextlib.AbstractContextManager[Any]:
        if self._adapted is None:
            return contextlib.nullcontext()
        disabled: contextlib.AbstractContextManager[Any] = self._adapted.disable_adapter()
        return disabled
