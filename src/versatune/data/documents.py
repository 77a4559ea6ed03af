"""From documents to token ids and labels: every token supervised, cut into pieces without loss.

A document begins as the model's texts do (:mod:`versatune.data.begin`) and ends with the end token.
What it begins with has no label.

A document of more than ``max_length`` tokens becomes several rows of at most ``max_length`` tokens,
one after another: each of its tokens is in exactly one of them. A row is trained alone, so nothing
predicts its first token, which has no label; all others have one.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding

from versatune.data.begin import begin_tokens, plain_tokenizer
from versatune.data.conversations import RejectedError
from versatune.data.encode import Example
from versatune.data.marks import as_json, control_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class DocumentSpec:
    """Everything needed from a tokenizer, as plain data that passes between processes."""

    tokenizer: str
    """The fast tokenizer as JSON."""
    begin: tuple[int, ...]
    """The tokens before a document's first."""
    end: int
    """The token after its last."""

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerBase") -> Self:
        """Of a fast tokenizer with an end token."""
        return cls(
            tokenizer=as_json(tokenizer, control_texts(tokenizer)),
            begin=tuple(begin_tokens(tokenizer)),
            end=tokenizer.eos_token_id,
        )


class DocumentEncoder:
    """Applies a tokenizer to documents. Control tokens in their text are encoded as plain text."""

    def __init__(self, spec: DocumentSpec, max_length: int) -> None:
        self.spec = spec
        self.max_length = max_length
        self._tokenizer = plain_tokenizer(spec.tokenizer)
        self._tokenizer.encode_special_tokens = True

    def encode(
        self, texts: Sequence[str], ended: Sequence[bool] | None = None
    ) -> list[list[Example] | RejectedError]:
        """The pieces of each document, in order; no end token follows one that is not ``ended``."""
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        ends = [True] * len(texts) if ended is None else ended
        return [self._pieces(*each) for each in zip(texts, found, ends, strict=True)]

    def _pieces(self, text: str, encoding: Encoding, ended: bool) -> list[Example] | RejectedError:
        inner = np.array(encoding.ids, np.int32)
        if not len(inner):
            return RejectedError("no_supervised_tokens", "the document has no tokens")
        begin = np.array(self.spec.begin, np.int32)
        end = np.array([self.spec.end] if ended else [], np.int32)
        ids = np.concatenate([begin, inner, end])
        if len(ids) < 2:
            return RejectedError("no_supervised_tokens", "the document has only one token")
        ends = _byte_ends(text, encoding)
        ends = np.concatenate([np.zeros(len(begin), np.int64), ends, ends[-1:][: len(end)]])
        borders = piece_borders(len(ids), self.max_length)
        return [
            self._piece(ids, ends, first, end, max(first + 1, len(begin)))
            for first, end in itertools.pairwise(borders)
        ]

    def _piece(
        self,
        ids: npt.NDArray[np.int32],
        ends: npt.NDArray[np.int64],
        first: int,
        end: int,
        supervised: int,
    ) -> Example:
        """Tokens ``first`` to ``end``, with labels from ``supervised`` on."""
        n_bytes = int(ends[end - 1] - ends[supervised - 1])
        return Example(ids[first:end], [(supervised - first, end - first)], n_bytes)


def piece_borders(tokens: int, max_length: int) -> list[int]:
    """Where pieces begin, and where the last ends: all ``max_length`` long but the last.

    A last piece of one token would have nothing to train on, so its predecessor is one token
    shorter.
    """
    borders = [*range(0, tokens, max_length), tokens]
    if len(borders) > 2 and borders[-1] - borders[-2] == 1:
        borders[-2] -= 1
    return borders


def _byte_ends(text: str, encoding: Encoding) -> npt.NDArray[np.int64]:
    """Where each token ends in the text, in UTF-8 bytes; shape (tokens,).

    A character of several tokens ends with the first of them, as offsets have it.
    """
    ends = np.fromiter((end for _, end in encoding.offsets), np.int64, len(encoding))
    ends = np.maximum.accumulate(ends)
    if text.isascii():
        return ends
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    sizes = 1 + (points > 0x7F) + (points > 0x7FF) + (points > 0xFFFF)
    return np.concatenate([[0], np.cumsum(sizes)])[ends]
