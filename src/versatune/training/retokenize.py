"""A tokenised store in another model's tokens, for reference runs of a proxy."""

from collections.abc import Collection
from itertools import groupby
from pathlib import Path
from typing import Any

import datasets
import pyarrow.compute as pc

from versatune.artifacts import FolderRef
from versatune.data.answers import stop_tokens
from versatune.data.begin import begin_tokens
from versatune.data.marks import control_ids
from versatune.data.store import Split, write_index
from versatune.modeling.checkpoints import CheckpointRef, load_tokenizer
from versatune.modeling.losses import IGNORE
from versatune.work import Piece

VERSION = 5
"""Raised when the same store gives other tokens, so that kept ones are not used."""


def retokenize(store: FolderRef, base: CheckpointRef, proxy: CheckpointRef) -> Piece:
    """Every example decoded with ``base``'s tokenizer and encoded with the proxy's.

    Supervised and other parts are converted one by one, so that labels keep their place; special
    tokens of the base (its chat template's) are left out. A row that begins a text begins as the
    proxy's texts do. An answer that ends with a special token ends with what ends an answer of the
    proxy, a document with the proxy's end token. The bytes, by which losses are compared, stay
    those of the store; nothing is cut, so ``max_length`` becomes the longest example's.
    """
    inputs = {"store": store.fingerprint, "base": base.fingerprint, "proxy": proxy.fingerprint}

    def make(folder: Path) -> dict[str, Any]:
        old, new = load_tokenizer(base), load_tokenizer(proxy)
        end = stop_tokens(new, new.eos_token_id)[0]
        begins = begin_tokens(old), begin_tokens(new)
        control = control_ids(old)
        longest = 1
        splits: tuple[Split, ...] = ("train", "steering")
        for split in splits:
            rows = datasets.load_from_disk(str(store.path / split))
            turned = rows.map(
                lambda row: _turn(row, old, new, end, control, begins),
                features=rows.features,
                desc=f"{split} rows",
            )
            longest = max(longest, pc.max(turned.data.column("length")).as_py() or 0)
            turned.save_to_disk(str(folder / split))
            write_index(folder / split)
        return {"domains": store.metadata["domains"], "max_length": longest}

    return Piece({"version": VERSION, **inputs}, make)


def _turn(
    row: dict[str, Any],
    old: Any,
    new: Any,
    end: int,
    control: Collection[int],
    begins: tuple[list[int], list[int]] = ([], []),
) -> dict[str, Any]:
    """``end``: what ends an answer in ``new``; ``control``: the control tokens of ``old``;
    ``begins``: what texts begin with in both."""
    before, after = begins
    # The later pieces of a long document begin no text.
    is_start = row["input_ids"][: len(before)] == before
    if IGNORE not in row["labels"][max(1, len(before) * is_start) :]:  # a document: nothing asked
        end = new.eos_token_id
    ids: list[int] = list(after) if is_start else []
    labels: list[int] = [IGNORE] * len(ids)
    marked = zip(row["input_ids"], (label != IGNORE for label in row["labels"]), strict=True)
    for supervised, part in groupby(marked, key=lambda pair: pair[1]):
        given = [token for token, _ in part]
        text = old.decode([token for token in given if token not in control])
        tokens = new(text, add_special_tokens=False)["input_ids"]
        # One that is cut off does not end.
        tokens += [end] if supervised and given[-1] in control else []
        ids += tokens
        labels += tokens if supervised else [IGNORE] * len(tokens)
    labels[:1] = [IGNORE]  # of a document whose begin token is left out: nothing predicts it
    return {
        "input_ids": ids,
        "labels": labels,
        "length": len(ids),
        "n_supervised": sum(label != IGNORE for label in labels),
    }
