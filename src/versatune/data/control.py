"""Control tokens that take in blanks around them.

A tokenizer may declare that a token takes the white space after it (``rstrip``, as Phi-3's
``<|assistant|>``), or before it (``lstrip``). The blanks of an answer then belong to a token of the
template, which is no part of the answer.
"""

import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from versatune.data.fields import RejectedError
from versatune.data.spans import Places, Span


class ControlTokens:
    """The added tokens of one tokenizer (as JSON)."""

    def __init__(self, tokenizer: str) -> None:
        added = json.loads(tokenizer)["added_tokens"]
        self._texts = {token["id"]: token["content"] for token in added}
        self._swallow = {token["id"] for token in added if token["lstrip"] or token["rstrip"]}

    def without_swallowed(
        self,
        ids: npt.NDArray[np.int32],
        places: Places,
        offsets: Sequence[tuple[int, int]],
        text: str,
        spans: list[Span],
    ) -> tuple[Places, list[Span]]:
        """Places and spans of the answers, without tokens of the template that took their blanks.

        ``places``: (first, end) token positions; ``offsets``: where each token stands in ``text``.
        A token stays when its own text lies in the answer, as that of the answer's end does.
        """
        if not self._swallow or self._swallow.isdisjoint(ids.tolist()):
            return places, spans
        kept, cut = [], []
        for (first, end), span in zip(places, spans, strict=True):
            start = span.start
            while first < end and self._begins(ids[first], offsets[first], text) < span.start:
                start = max(start, offsets[first][1])
                first += 1
            while end > first and self._ends(ids[end - 1], offsets[end - 1], text) > span.end:
                end -= 1
            kept.append((first, end))
            cut.append(Span(min(start, span.stop), span.stop, span.end))
        return kept, cut

    def check_ends(self, ids: npt.NDArray[np.int32], places: Places, spans: Sequence[Span]) -> None:
        """Raise RejectedError when an answer's end is not read as a token.

        A token with ``single_word`` is not found right behind a letter: the model would learn to
        write its name, letter by letter, and never to stop.
        """
        for (first, end), span in zip(places, spans, strict=True):
            if end > first and span.end > span.stop and int(ids[end - 1]) not in self._texts:
                raise RejectedError(
                    "end_not_a_token", "the tokenizer does not read the end of an answer as a token"
                )

    def _begins(self, token: int, at: tuple[int, int], text: str) -> int:
        """Where the token's own text begins; another than a swallowing one never begins early."""
        if token not in self._swallow:
            return len(text)
        found = text.find(self._texts[token], *at)
        return found if found >= 0 else at[1] - len(text[slice(*at)].lstrip())

    def _ends(self, token: int, at: tuple[int, int], text: str) -> int:
        if token not in self._swallow:
            return 0
        found = text.find(self._texts[token], *at)
        if found >= 0:
            return found + len(self._texts[token])
        return at[0] + len(text[slice(*at)].rstrip())
