"""Evaluation questions, and the training rows that contain them."""

import json
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from versatune.data.fields import kind_of
from versatune.data.json_files import DoubleKeyError, no_doubles
from versatune.data.streams import open_text, refuse_carriage_returns
from versatune.data.text import U64, Ints, Vocabulary, flatten, fold, ngram_hashes, only_words
from versatune.errors import VersatuneError

BOILERPLATE = 5
"""Words that this many questions have in common are a phrasing, not a question."""
SHORT = 5
"""Questions of fewer words leak only when a whole prompt is the question."""


class LeakIndex:
    """Hashes of the questions' words, to be looked up for batches of rows.

    A row leaks a question when it holds ``n`` of its words in a row, or all of them where it has
    fewer (five at least; still shorter ones must be the whole prompt).
    """

    def __init__(self, questions: Iterable[str], n: int) -> None:
        vocabulary = Vocabulary()
        by_length: dict[int, list[U64]] = {}
        short: set[int] = set()
        for question in set(map(fold, questions)):
            words, _ = only_words(*flatten([vocabulary.ids(question)]))
            if len(words) < SHORT:
                short.update(ngram_hashes(words, len(words)).tolist() if len(words) else [])
            else:
                size = min(n, len(words))
                by_length.setdefault(size, []).append(np.unique(ngram_hashes(words, size)))
        self._short = _Known(np.array(sorted(short), dtype=np.uint64))
        self._runs = {size: _Known(_rare(found)) for size, found in sorted(by_length.items())}

    def leaking(self, flat: U64, starts: Ints) -> npt.NDArray[np.bool_]:
        """Which rows of a batch of token ids hold a question; shape (rows,)."""
        words, starts = only_words(flat, starts)
        found = np.zeros(len(starts) - 1, dtype=bool)
        for size, known in self._runs.items():
            hits = known.where(ngram_hashes(words, size))
            rows = np.searchsorted(starts, hits, side="right") - 1
            found[rows[hits + size <= starts[rows + 1]]] = True
        return found

    def is_question(self, flat: U64, starts: Ints) -> npt.NDArray[np.bool_]:
        """Which prompts are a short question as a whole; shape (rows,)."""
        words, starts = only_words(flat, starts)
        lengths = np.diff(starts)
        found = np.zeros(len(lengths), dtype=bool)
        for size in range(1, SHORT):
            rows = np.flatnonzero(lengths == size)
            if len(rows):
                found[rows[self._short.where(ngram_hashes(words, size)[starts[rows]])]] = True
        return found


def read_questions(path: Path) -> list[str]:
    """What is asked in a JSONL file of evaluation items: ``question``, ``prompt`` or ``text``.

    Raises VersatuneError with the line when an item has none of them, or two equal choices: such a
    file is refused here, before training, and not only when it is evaluated.
    """
    return [_question(item, where) for where, item in read_items(path)]


def read_items(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSONL file of evaluation items, each with its place, file:line.

    Raises VersatuneError with the line of what is no JSON object in UTF-8, or names a key twice.
    """
    with open_text(path) as handle:
        refuse_carriage_returns(path, handle)
        for number, line in enumerate(handle, start=1):
            where = f"{path}:{number}"
            if line.strip():
                yield where, _item(line, where)


def _item(line: bytes, where: str) -> dict[str, Any]:
    try:
        item = json.loads(line.decode(), object_pairs_hook=no_doubles)
        json.dumps(item, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise VersatuneError(f"{where}: half a character (a lone surrogate) in a text.") from error
    except UnicodeDecodeError as error:
        raise VersatuneError(f"{where}: not UTF-8 (byte {error.start + 1}).") from error
    except DoubleKeyError as error:
        raise VersatuneError(f"{where}: {error}.") from error
    except (ValueError, RecursionError) as error:
        raise VersatuneError(
            f"{where}: not JSON ({error}). Questions are JSON lines: an object a line."
        ) from error
    if not isinstance(item, dict):
        raise VersatuneError(f"{where}: a JSON object is needed, this is {kind_of(item)}.")
    return item


def equal_choices(choices: object) -> str | None:
    """What is wrong with choices of which two are the same text; None when they differ.

    A character with an accent is the same as one and as a letter with a combining accent. Nor do
    kinds of blanks and characters that nobody sees tell two texts apart.
    """
    if not isinstance(choices, list):
        return None
    texts = [_as_seen(choice) for choice in choices if isinstance(choice, str)]
    for text in texts:
        if texts.count(text) > 1:
            return f"'choices' holds {text!r} more than once, so the right one is unclear"
    return None


def _as_seen(text: str) -> str:
    """``text`` with a plain blank for every kind of blank, without invisible characters."""
    seen = {"Zs": " ", "Cf": ""}
    shown = "".join(seen.get(unicodedata.category(letter), letter) for letter in text)
    return unicodedata.normalize("NFC", shown.strip())


def _question(item: dict[str, Any], where: str) -> str:
    for value in (item.get(key) for key in _ASKED):
        if isinstance(value, str) and value.strip():
            if problem := equal_choices(item.get("choices")):
                raise VersatuneError(f"{where}: {problem}.")
            return value
    raise VersatuneError(f"{where}: the evaluation item has no `question`, `prompt` or `text`.")


_ASKED = ("question", "prompt", "text")


class _Known:
    """A set of hashes, asked for many at a time: a table of their top bits rules most out."""

    def __init__(self, values: U64) -> None:
        self._values = values
        self._table = np.zeros(1 << _TABLE_BITS, dtype=bool)
        self._table[values >> _TOP] = True

    def where(self, asked: U64) -> Ints:
        """Positions in ``asked`` of the hashes that are in the set."""
        maybe = np.flatnonzero(self._table[asked >> _TOP])
        if not len(maybe):
            return maybe
        at = np.searchsorted(self._values, asked[maybe])
        result: Ints = maybe[self._values[np.minimum(at, len(self._values) - 1)] == asked[maybe]]
        return result


_TABLE_BITS = 22
_TOP = np.uint64(64 - _TABLE_BITS)


def _rare(found: list[U64]) -> U64:
    """The sorted hashes that stand in fewer than BOILERPLATE questions."""
    values, counts = np.unique(np.concatenate(found), return_counts=True)
    return values[counts < BOILERPLATE]
