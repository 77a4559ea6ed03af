"""Training rows for a person to look at: rendered, with their supervised tokens marked."""

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from versatune.artifacts import FolderRef
from versatune.data.conversations import RejectedError, is_document

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

    from versatune.data.encode import Example
    from versatune.data.shards import Encoders

MARKS = ("⟦", "⟧")
"""Marks around supervised text; the same signs in a row's own text become brackets."""
TRIED = 30
"""Rows of a domain that are tried at most, where some can't be rendered."""
PIECES = 3
"""Pieces of a document that are shown at most."""
PART, WHOLE = 400, 3000
"""Characters shown of a part of a text, and of a text."""


def preview(
    clean: FolderRef, tokenizer: "PreTrainedTokenizerBase", encoder: "Encoders", per_domain: int = 3
) -> dict[str, list[dict[str, Any]]]:
    """For each domain ``per_domain`` rows to train on: the first, the last, and between them.

    ``clean``: the result of :func:`versatune.data.clean.clean`. Each entry has ``row``
    (file:line), ``tokens``, ``supervised_tokens`` and ``text``: the rendered text, read back from
    its tokens with control tokens visible, supervised tokens between :data:`MARKS`, long parts
    shortened. A conversation that gives several examples has an entry for each, a document one for
    each of its first :data:`PIECES` pieces.
    """
    import datasets

    rows = datasets.load_from_disk(str(clean.path / "train"))
    domain = rows.data.column("domain").to_numpy()
    return {
        name: list(_of_domain(rows, np.flatnonzero(domain == d), tokenizer, encoder, per_domain))
        for d, name in enumerate(clean.metadata["domains"])
    }


def marked(tokenizer: "PreTrainedTokenizerBase", example: "Example") -> str:
    """The text of an example's tokens, supervised ones between :data:`MARKS`."""
    shown, before, size = [], "", 0
    borders = [0, *(at for span in example.spans for at in span), len(example.ids)]
    for number, (start, end) in enumerate(itertools.pairwise(borders)):
        upto = str(
            tokenizer.decode(
                example.ids[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )
        part = upto[len(before) :].replace(MARKS[0], "[").replace(MARKS[1], "]")
        if len(part) > PART:
            part = f"{part[: PART * 3 // 4]} ... {part[-PART // 4 :]}"
        before = upto
        size += len(part)
        if start < end:
            shown.append(part.join(MARKS) if number % 2 else part)
        if size > WHOLE and end < len(example.ids):
            return "".join([*shown, " ..."])
    return "".join(shown)


def _of_domain(
    rows: "datasets.Dataset",
    mine: Any,
    tokenizer: "PreTrainedTokenizerBase",
    encoder: "Encoders",
    wanted: int,
) -> Iterator[dict[str, Any]]:
    spread = mine[np.linspace(0, len(mine) - 1, min(wanted, len(mine))).astype(int)].tolist()
    tried = dict.fromkeys([*spread, *mine[:TRIED].tolist()])
    found = 0
    for number in tried:
        row = rows[number]
        (result,) = encoder.encode([row["messages"]])
        if isinstance(result, RejectedError):
            continue
        for example in result[:PIECES] if is_document(row["messages"]) else result:
            yield {
                "row": row["row"],
                "tokens": len(example.ids),
                "supervised_tokens": example.n_supervised,
                "text": marked(tokenizer, example),
            }
        found += 1
        if found == wanted:
            return
