"""From places in a text, in characters, to places among its tokens."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding

from versatune.data.prepared import LITERAL
from versatune.data.spans import Places, Span


@dataclass
class Located:
    """Token ids, the token positions of the answers, and where tokens stand in the text."""

    ids: npt.NDArray[np.int32]
    places: Places
    offsets: list[tuple[int, int]]
    """(start, end) of each token in the text, in characters; of a character that is several tokens
    each has the whole."""


def locate_spans(text: str, spans: list[Span], encoding: Encoding) -> Located:
    """Answers found among the tokens of a text by the tokenizer's own offsets."""
    ids = np.array(encoding.ids, np.int32)
    places = []
    for span in spans:
        first = encoding.char_to_token(span.start)
        end = encoding.char_to_token(span.end) if span.end < len(text) else len(ids)
        if first is None or end is None:
            places.append(locate_span(encoding.offsets, span))
        else:
            # A token that begins in the answer and ends after it belongs to the answer.
            begins = encoding.token_to_chars(end) if end < len(ids) else None
            places.append((first, end + (begins is not None and begins[0] < span.end)))
    return Located(ids, places, encoding.offsets)


def locate_span(offsets: list[tuple[int, int]], span: Span) -> tuple[int, int]:
    """The tokens that share a character with the span, where characters may have no token."""
    inside = [i for i, (start, end) in enumerate(offsets) if start < span.end and end > span.start]
    return (inside[0], inside[-1] + 1) if inside else (0, 0)


def n_bytes(text: str, span: Span) -> int:
    """UTF-8 bytes of the text in a span, without the LITERAL marks."""
    if text.isascii():
        return span.stop - span.start
    said = text[span.start : span.stop]
    for mark in LITERAL:
        said = said.replace(mark, "")
    return len(said.encode())
