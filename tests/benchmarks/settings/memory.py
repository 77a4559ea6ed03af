"""What runs of one process have in common, done once: reading rows, measuring, choosing a layout.

Runs of a setting begin with the same model. Reading its rows takes a third of a small run's time;
measuring the base model and the saved one takes a third of a real model's.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any, cast

import torch

from versatune.artifacts import FolderRef
from versatune.data.store import Split, TokenizedSplit
from versatune.modeling import heldout
from versatune.training import run


class InMemory:
    """What training asks of a dataset, of rows that are read once."""

    def __init__(self, dataset: Any) -> None:
        self._rows = list(dataset)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: int) -> dict[str, Any]:
        return cast(dict[str, Any], self._rows[at])


def do_once() -> None:
    """From here on, in this process, what is the same in several runs is done in the first."""
    TokenizedSplit.load = staticmethod(kept_rows(TokenizedSplit.load))  # type: ignore[method-assign,assignment]
    heldout.row_losses = measured_once(heldout.row_losses)
    run.choose_layout = chosen_once(run.choose_layout)


def kept_rows(load: Callable[..., TokenizedSplit]) -> Callable[..., TokenizedSplit]:
    """``load`` that reads a store's split once. Its rows are the same."""

    @lru_cache(maxsize=8)
    def kept(path: str, fingerprint: str, split: Split) -> TokenizedSplit:
        del fingerprint  # tells one store in a folder from the next
        found = load(FolderRef.load(path), split)
        return replace(found, dataset=cast(Any, InMemory(found.dataset)))

    def load_kept(ref: FolderRef, split: Split) -> TokenizedSplit:
        return kept(str(ref.path), ref.fingerprint, split)

    return load_kept


def measured_once(measure: Callable[..., Any]) -> Callable[..., Any]:
    """``row_losses`` that measures equal weights on equal rows once."""
    known: dict[tuple[Any, ...], Any] = {}

    def measured(
        model: Any,
        split: TokenizedSplit,
        rows: Any,
        batch_tokens: int | None,
        loss: Any = None,
        *more: Any,
    ) -> Any:
        lengths, supervised = split.lengths[rows], split.supervised[rows]
        # Training's own way of calling the model casts by itself, if it casts.
        cast_to = loss is not None or torch.is_autocast_enabled("cpu")
        key = (
            weights(model),
            (rows.tobytes(), lengths.tobytes(), supervised.tobytes()),
            (cast_to, batch_tokens),
        )
        if key not in known:
            known[key] = measure(model, split, rows, batch_tokens, loss, *more)
        return known[key].copy()

    return measured


def chosen_once(choose: Callable[..., Any]) -> Callable[..., Any]:
    """``choose_layout`` that tries equal weights once."""
    known: dict[tuple[Any, ...], tuple[Any, str]] = {}

    def chosen(model: Any, packing: bool, longest: int, *, bf16: bool = False) -> Any:
        key = (weights(model), packing, longest, bf16)
        if key not in known:
            layout = choose(model, packing, longest, bf16=bf16)
            known[key] = layout, model.config._attn_implementation
        layout, attention = known[key]
        model.set_attn_implementation(attention)
        return layout

    return chosen


def weights(model: Any) -> str:
    """A fingerprint of all parameters and buffers."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
