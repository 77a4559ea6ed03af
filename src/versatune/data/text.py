"""Normalised texts as numbers: keys for equality, word ids, hashes of runs of words.

Word ids are 64-bit hashes that are the same on every machine and in every run. A batch of rows
is one flat array of ids; their start positions separate rows, so that all work on runs
of words is done on whole arrays.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

_PRIME = np.uint64(0x9E3779B97F4A7C15)
# Scripts written without spaces count one word a character.
_CJK = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+|[^\w\s]")
_VOCABULARY = 1_000_000


def fold(text: str) -> str:
    """``text`` in one spelling: compatibility forms and case folded, runs of blanks to one."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def key(text: str) -> int:
    """64 bits that stand for ``text``, the same everywhere."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def hash_u64(values: U64, seed: int = 0) -> U64:
    """Scramble 64-bit values (the finaliser of splitmix64); a different way for each seed."""
    x = values ^ np.uint64(key(str(seed)))
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniform(values: U64, seed: int) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each value: a draw that stays when other values come or go."""
    return (hash_u64(values, seed) >> np.uint64(11)).astype(np.float64) / float(1 << 53)


class Vocabulary(dict[str, int]):
    """Token -> id. The lowest bit is 1 for words and 0 for punctuation; no id is 0."""

    def __missing__(self, token: str) -> int:
        if len(self) >= _VOCABULARY:
            self.clear()
        is_word = token[0].isalnum() or token[0] == "_"
        value = (key(token) | 3) if is_word else ((key(token) | 2) & ~1)
        self[token] = value
        return value

    def ids(self, folded: str) -> list[int]:
        """The ids of the words and punctuation marks of a folded text."""
        return [self[token] for token in _TOKEN.findall(folded)]


def flatten(rows: Sequence[Iterable[int]]) -> tuple[U64, Ints]:
    """Rows of ids as (flat, starts): shapes (n,) and (len(rows) + 1,)."""
    arrays = [np.array(row, dtype=np.uint64) for row in rows]
    starts = np.zeros(len(arrays) + 1, dtype=np.int64)
    np.cumsum([len(a) for a in arrays], out=starts[1:])
    return np.concatenate(arrays) if arrays else np.empty(0, dtype=np.uint64), starts


def only_words(flat: U64, starts: Ints) -> tuple[U64, Ints]:
    """The same rows without punctuation."""
    is_word = (flat & np.uint64(1)).astype(bool)
    before = np.concatenate([[0], np.cumsum(is_word)])
    return flat[is_word], before[starts]


def ngram_hashes(flat: U64, n: int) -> U64:
    """Hashes of all runs of ``n`` ids, run i beginning at position i; shape (len - n + 1,).

    Runs that cross from one row to the next are included: the caller masks them.
    """
    size = max(len(flat) - n + 1, 0)
    hashed = np.zeros(size, dtype=np.uint64)
    for offset in range(n):
        hashed = hashed * _PRIME + flat[offset : offset + size]
    return hash_u64(hashed)
