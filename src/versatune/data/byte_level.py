"""Where the tokens of a byte-level tokenizer stand in a text, from their ids alone.

Each token of such a tokenizer is the next bytes of the text, so the sum of the tokens' lengths in
bytes says where each one stands. A batch is located by two binary searches, and the tokenizer need
not keep track of offsets, which costs it time.
"""

import itertools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from versatune.data.spans import Span

Places = list[tuple[int, int]]
"""(first, end) token positions of the answers of a row."""


def byte_lengths(tokenizer: str) -> npt.NDArray[np.int64] | None:
    """Bytes of each token id of a tokenizer (as JSON); None when its tokens may not be bytes.

    They are for a BPE whose texts pass into bytes unchanged. A row of which the tokens' lengths
    do not add up to the text's is one that was changed after all: see :func:`locate`.
    """
    spec = json.loads(tokenizer)
    if spec["model"]["type"] != "BPE" or spec["normalizer"] or not _to_bytes(spec["pre_tokenizer"]):
        return None
    texts = {number: len(token) for token, number in spec["model"]["vocab"].items()}
    texts |= {added["id"]: len(added["content"].encode()) for added in spec["added_tokens"]}
    found = np.zeros(max(texts) + 1, np.int64)
    found[list(texts)] = list(texts.values())
    return found


def _to_bytes(pre_tokenizer: dict[str, Any] | None) -> bool:
    """Whether the pieces of a text become bytes, and none is put before the text."""
    steps = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer or {}])
    return (
        {step.get("type") for step in steps} <= {"ByteLevel", "Split", "Digits"}
        and [step.get("type") for step in steps].count("ByteLevel") == 1
        and not any(step.get("add_prefix_space") for step in steps)
    )


def locate(
    lengths: npt.NDArray[np.int64],
    flat: npt.NDArray[np.int32],
    borders: npt.NDArray[np.int64],
    rows: Sequence[tuple[str, Sequence[Span]]],
) -> list[tuple[Places, npt.NDArray[np.int64]] | None]:
    """The answers of rows as token positions, and where each token ends in bytes.

    ``flat``: the ids of all rows, one after another; row i has ``flat[borders[i]:borders[i + 1]]``.
    ``rows``: text and answers. None for a row whose tokens are not the bytes of its text.
    """
    ends = np.cumsum(lengths[flat])
    begins = ends - lengths[flat]
    bases = np.concatenate([[0], ends])[borders]
    starts: list[int] = []
    stops: list[int] = []
    sizes = np.zeros(len(rows), np.int64)
    for number, ((text, spans), base) in enumerate(zip(rows, bases.tolist(), strict=False)):
        if text.isascii():
            sizes[number] = len(text)
            starts += [base + span.start for span in spans]
            stops += [base + span.end for span in spans]
        else:
            sizes[number] = len(text.encode())
            starts += [base + len(text[: span.start].encode()) for span in spans]
            stops += [base + len(text[: span.end].encode()) for span in spans]
    first = np.searchsorted(ends, starts, side="right").tolist()
    end = np.searchsorted(begins, stops, side="left").tolist()
    exact = (np.diff(bases) == sizes).tolist()
    found: list[tuple[Places, npt.NDArray[np.int64]] | None] = []
    at = 0
    bounds = itertools.pairwise(borders.tolist())
    for (_, spans), (border, last), base, is_exact in zip(
        rows, bounds, bases.tolist(), exact, strict=False
    ):
        upto = at + len(spans)
        places = zip(first[at:upto], end[at:upto], strict=True)
        own = [(a - border, b - border) for a, b in places]
        found.append((own, ends[border:last] - base) if is_exact else None)
        at = upto
    return found
