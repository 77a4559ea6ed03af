"""Near duplicates: MinHash signatures, banding and a check of every candidate, on whole arrays.

Jaccard similarity is taken over runs of five words and punctuation marks, with blanks around the
row, so one changed word anywhere changes five runs: short rows that state different facts in one
phrasing stay apart, and above about 60 words a single changed word no longer makes rows differ.
Rows with a short answer must have the same answer to be near duplicates.

Source: Broder, "On the resemblance and containment of documents" (1997); Leskovec, Rajaraman,
Ullman, "Mining of Massive Datasets", chapter 3 (banding).
"""

import numpy as np
import numpy.typing as npt

from versatune.data.text import U64, Ints, hash_u64, key, ngram_hashes

PERMUTATIONS = 128
RUN = 5
SHORT_ANSWER = 20
"""Answers of fewer tokens must be equal."""

Signatures = npt.NDArray[np.uint16]
_ROUNDS = 32

_rng = np.random.default_rng(20_26)
_A = _rng.integers(0, 2**63, PERMUTATIONS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_B = _rng.integers(0, 2**63, PERMUTATIONS, dtype=np.uint64)


def signatures(flat: U64, starts: Ints) -> Signatures:
    """MinHash signatures of rows of token ids; shape (rows, 128).

    Sixteen bits of each minimum are kept: two that differ look equal once in 65,536.
    """
    padded, begins = _pad(flat, starts)
    shingles = ngram_hashes(padded, RUN)
    found = np.empty((len(starts) - 1, PERMUTATIONS), dtype=np.uint16)
    for column, (a, b) in enumerate(zip(_A, _B, strict=True)):
        least = np.minimum.reduceat(shingles * a + b, begins)
        found[:, column] = (least >> np.uint64(20)).astype(np.uint16)
    return found


def _pad(flat: U64, starts: Ints) -> tuple[U64, Ints]:
    """Four blanks before each row and after the last, so that runs cross no two rows' words."""
    blanks = RUN - 1
    rows = len(starts) - 1
    padded = np.zeros(len(flat) + blanks * (rows + 1), dtype=np.uint64)
    owner = np.repeat(np.arange(rows), np.diff(starts))
    padded[np.arange(len(flat)) + blanks * (owner + 1)] = flat
    return padded, starts[:-1] + blanks * np.arange(rows)


def band_rows(threshold: float) -> int:
    """Signature places in a band: the most that still find a pair at ``threshold`` 99 in 100."""
    for size in range(16, 1, -1):
        if (1 - threshold**size) ** (PERMUTATIONS // size) <= 0.01:
            return size
    return 1


def near_duplicates(
    signature: Signatures, answers: U64, alive: npt.NDArray[np.bool_], threshold: float
) -> Ints:
    """The earlier row that stays and that a row is a near duplicate of, or -1; shape (rows,).

    ``answers``: rows with different values are never duplicates. ``alive``: rows to look at.
    A row goes only when its own similarity with a staying row reaches ``threshold`` (estimated
    from the signatures, standard error 0.03), never through a chain of similar rows.
    """
    original = np.full(len(signature), -1, dtype=np.int64)
    if not alive.any():
        return original
    size = band_rows(threshold)
    pairs = [
        _band_pairs(signature, answers, alive, slice(at, at + size), threshold)
        for at in range(0, PERMUTATIONS - size + 1, size)
    ]
    first, second = np.unique(np.concatenate(pairs, axis=1), axis=1)[::-1]
    order = np.lexsort((second, first))
    first, second = first[order], second[order]
    for later, earlier in zip(first.tolist(), second.tolist(), strict=True):
        if original[earlier] < 0 and original[later] < 0:
            original[later] = earlier
    return original


def _band_pairs(
    signature: Signatures,
    answers: U64,
    alive: npt.NDArray[np.bool_],
    band: slice,
    threshold: float,
) -> Ints:
    """Verified (earlier, later) pairs that meet in one band; shape (2, pairs).

    In each bucket all rows are compared with the first; those unlike it are compared among
    themselves in the next round. The number of rounds is bounded, so that a bucket of many
    different rows can't make the work quadratic.
    """
    rows = np.flatnonzero(alive)
    bucket = answers[rows].copy()
    for column in range(band.start, band.stop):
        bucket = hash_u64(bucket + signature[rows, column].astype(np.uint64), seed=column)
    order = np.argsort(bucket, kind="stable")
    rows, bucket = rows[order], bucket[order]
    found = [np.empty((2, 0), dtype=np.int64)]
    for _ in range(_ROUNDS):
        new = np.concatenate([[True], bucket[1:] != bucket[:-1]])
        crowded = np.diff(np.append(np.flatnonzero(new), len(bucket))) > 1
        group = np.cumsum(new) - 1
        keep = crowded[group]
        rows, bucket, new, group = rows[keep], bucket[keep], new[keep], group[keep]
        if not len(rows):
            break
        leader = np.flatnonzero(new)[np.cumsum(new) - 1]
        others = np.flatnonzero(~new)
        alike = _similarity(signature, rows[leader[others]], rows[others]) >= threshold
        found.append(np.stack([rows[leader[others[alike]]], rows[others[alike]]]))
        rest = others[~alike]
        rows, bucket = rows[rest], bucket[rest]
        if not len(rows):
            break
    return np.concatenate(found, axis=1)


def _similarity(signature: Signatures, one: Ints, other: Ints) -> npt.NDArray[np.float64]:
    """The share of equal places in the signatures of row pairs; shape (pairs,)."""
    result = np.empty(len(one))
    for at in range(0, len(one), 65536):
        part = slice(at, at + 65536)
        result[part] = (signature[one[part]] == signature[other[part]]).mean(axis=1)
    return result


def answer_key(folded: str, tokens: int) -> int:
    """What :func:`near_duplicates` compares exactly: a short answer, no part of a long one."""
    return key(folded) if tokens < SHORT_ANSWER else 0
