"""A tokenised store in another model's tokens, for reference runs of a proxy."""

from itertools import groupby
from typing import Any

from versatune.artifacts import FolderRef, WorkFolder
from versatune.data.store import Split
from versatune.modeling.checkpoints import CheckpointRef, load_tokenizer
from versatune.modeling.losses import IGNORE


def retokenize(
    store: FolderRef, base: CheckpointRef, proxy: CheckpointRef, folder: Any
) -> FolderRef:
    """Decode every example with ``base``'s tokenizer and encode it with the proxy's.

    Supervised and other parts are turned one by one, so that labels keep their place; special
    tokens of the base (its chat template's) are left out, and a supervised part ends with the
    proxy's end token. The bytes, by which losses are compared, stay those of the store; nothing
    is cut, so ``max_length`` becomes the longest example's.
    """
    work = WorkFolder.open(
        folder, {"store": store.fingerprint, "base": base.fingerprint, "proxy": proxy.fingerprint}
    )
    if work.complete:
        return work.ref
    import datasets

    old, new = load_tokenizer(base), load_tokenizer(proxy)
    longest = 1
    splits: tuple[Split, ...] = ("train", "steering")
    for split in splits:
        rows = datasets.load_from_disk(str(store.path / split))
        turned = rows.map(
            lambda row: _turn(row, old, new), features=rows.features, desc=f"{split} rows"
        )
        longest = max(longest, *turned["length"])
        turned.save_to_disk(str(work.path / split))
    return work.seal(domains=store.facts["domains"], max_length=longest)


def _turn(row: dict[str, Any], old: Any, new: Any) -> dict[str, Any]:
    ids: list[int] = []
    labels: list[int] = []
    marked = zip(row["input_ids"], (label != IGNORE for label in row["labels"]), strict=True)
    for supervised, part in groupby(marked, key=lambda pair: pair[1]):
        text = old.decode([token for token, _ in part], skip_special_tokens=True)
        tokens = new(text, add_special_tokens=False)["input_ids"]
        tokens += [new.eos_token_id] if supervised else []
        ids += tokens
        labels += tokens if supervised else [IGNORE] * len(tokens)
    return {
        "input_ids": ids,
        "labels": labels,
        "length": len(ids),
        "n_supervised": sum(label != IGNORE for label in labels),
    }
