"""From conversations to token ids and labels, a batch at a time."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Encoding, Tokenizer

from versatune.data.begin import plain_tokenizer
from versatune.data.control import ControlTokens
from versatune.data.conversations import Messages, RejectedError, loaded
from versatune.data.located import Located, locate_span, locate_spans, n_bytes
from versatune.data.marks import as_json, control_texts
from versatune.data.own_templates import chat_templates
from versatune.data.spans import Places
from versatune.data.templates import LITERAL, ChatTemplate, Span
from versatune.errors import VersatuneError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LISTS = pa.list_(pa.int32())
SCHEMA = pa.schema(
    [("input_ids", _LISTS), ("labels", _LISTS)]
    + [(name, pa.int32()) for name in ("domain", "length", "n_supervised", "n_bytes")]
    + [("row", pa.string())]
)
"""The columns of a store; see ``store``."""


@dataclass(frozen=True)
class EncoderSpec:
    """What encoding needs from a tokenizer, as plain data that passes between processes."""

    tokenizer: str
    """The fast tokenizer as JSON."""
    template: str
    special_tokens: dict[str, str]
    control: tuple[str, ...]
    """The texts of its control tokens."""
    tool_template: str | None = None
    """The template for rows with tools, where the tokenizer brings its own for them."""

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerBase") -> "EncoderSpec":
        """Raises VersatuneError for a tokenizer that is not a fast one, or without a template."""
        if not tokenizer.is_fast:
            raise VersatuneError(
                f"{tokenizer.name_or_path}: its tokenizer has no fast form (tokenizer.json); "
                "save it once with transformers' AutoTokenizer(...).save_pretrained()."
            )
        template, tool_template = chat_templates(tokenizer)
        control = control_texts(tokenizer)
        return cls(
            tokenizer=as_json(tokenizer, control),
            template=template,
            tool_template=tool_template,
            special_tokens={k: str(v) for k, v in tokenizer.special_tokens_map.items()},
            control=control,
        )


@dataclass
class Example:
    """One tokenised conversation; ``spans`` are (first, end) token positions of the answers."""

    ids: npt.NDArray[np.int32]
    spans: Places
    n_bytes: int
    truncated: bool = False
    earlier: "tuple[Example, ...]" = ()
    """Further examples of the same conversation, of answers that the template shows differently
    once others follow; see ``templates.ChatTemplate.examples``."""

    @property
    def all(self) -> "tuple[Example, ...]":
        """The examples of the conversation, in the order of their answers."""
        return (*self.earlier, self)

    @property
    def n_supervised(self) -> int:
        return sum(end - first for first, end in self.spans)


_NOTHING = Example(np.array([], np.int32), [], 0)

_Rendered = tuple[int, str, list[Span]]
"""Place in the batch, text, answers."""


class Encoder:
    """Applies a tokenizer and its chat template.

    A token is supervised when any character of it belongs to an answer or to the control token
    that ends the answer. A control token is supervised only when it is itself part of the answer,
    not when it swallows the answer's blanks. Control tokens that a user typed are encoded as plain
    text.
    """

    def __init__(
        self, spec: EncoderSpec, max_length: int, overflow: Literal["drop", "truncate"]
    ) -> None:
        self.template = ChatTemplate(spec.template, spec.special_tokens, spec.control)
        self.tool_template = self.template
        if spec.tool_template is not None:
            self.tool_template = ChatTemplate(spec.tool_template, spec.special_tokens, spec.control)
        self.max_length = max_length
        self.overflow = overflow
        self._tokenizer = plain_tokenizer(spec.tokenizer)
        self._literal = plain_tokenizer(spec.tokenizer)
        self._literal.encode_special_tokens = True
        self._control = ControlTokens(spec.tokenizer)

    def encode(self, conversations: Sequence[Messages]) -> list[Example | RejectedError]:
        """One result a conversation, in order: its last example, which holds the ``earlier``."""
        return next(self.encode_batches([conversations]))

    def encode_rendered(
        self, rendered: Sequence[tuple[str, list[Span]]]
    ) -> list[Example | RejectedError]:
        """Texts that the template has rendered, with any places that are to be found in them."""
        rows = [(number, *row) for number, row in enumerate(rendered)]
        with ThreadPoolExecutor(1) as pool:
            return self._label([_NOTHING] * len(rows), rows, self._submit(pool, rows))

    def encode_batches(
        self, batches: Iterable[Sequence[Messages]]
    ) -> Iterator[list[Example | RejectedError]]:
        """One list of results a batch, in order.

        A batch is encoded in another thread (the tokenizer holds no Python lock) while this one
        renders the next and labels the last.
        """
        with ThreadPoolExecutor(1) as pool:
            waiting = None
            for conversations in batches:
                results, rendered = self._render(conversations)
                future = self._submit(pool, rendered)
                if waiting is not None:
                    yield self._label(*waiting)
                waiting = results, rendered, future
            if waiting is not None:
                yield self._label(*waiting)

    def _submit(
        self, pool: ThreadPoolExecutor, rendered: list[_Rendered]
    ) -> "Future[list[Encoding]]":
        plain = [text if LITERAL[0] not in text else "" for _, text, _ in rendered]
        return pool.submit(self._tokenizer.encode_batch, plain, add_special_tokens=False)

    def _render(
        self, conversations: Sequence[Messages]
    ) -> tuple[list[Example | RejectedError], list[_Rendered]]:
        """Results with the rejected rows filled in, and the others' texts and answers."""
        results: list[Example | RejectedError] = []
        rendered: list[_Rendered] = []
        for conversation in conversations:
            messages = loaded(conversation)
            with_tools = bool(messages) and "tools" in messages[0]
            template = self.tool_template if with_tools else self.template
            try:
                examples = template.examples(messages)
            except RejectedError as error:
                results.append(error)
            else:
                rendered += [(len(results), each.text, each.spans) for each in examples]
                results.append(_NOTHING)
        return results, rendered

    def _label(
        self,
        results: list[Example | RejectedError],
        rendered: list[_Rendered],
        encodings: "Future[list[Encoding]]",
    ) -> list[Example | RejectedError]:
        pieces: dict[int, list[Example | RejectedError]] = {}
        for (place, text, spans), encoding in zip(rendered, encodings.result(), strict=True):
            try:
                if LITERAL[0] in text:
                    tokens = self._locate_literals(text, spans)
                else:
                    tokens = locate_spans(text, spans, encoding)
                piece: Example | RejectedError = self._fit(tokens, text, spans)
            except RejectedError as error:
                piece = error
            pieces.setdefault(place, []).append(piece)
        for place, of_row in pieces.items():
            results[place] = self._joined(of_row)
        return results

    def _joined(self, pieces: list[Example | RejectedError]) -> Example | RejectedError:
        """One result of a conversation's examples; whole or not at all unless rows are cut."""
        kept = [piece for piece in pieces if isinstance(piece, Example)]
        lost = [piece for piece in pieces if isinstance(piece, RejectedError)]
        if not kept or (lost and self.overflow == "drop"):
            return lost[0]
        *earlier, last = kept
        last.earlier = tuple(earlier)
        last.truncated |= bool(lost) or any(piece.truncated for piece in earlier)
        return last

    def _locate_literals(self, text: str, spans: list[Span]) -> Located:
        """Encode in pieces: the template's control tokens as such, what a user typed as text."""
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        at = 0
        for number, piece in enumerate(_pieces(text)):
            tokenizer = self._literal if number % 2 else self._tokenizer
            piece_ids, piece_offsets = _encode_piece(tokenizer, piece, first=number == 0)
            ids += piece_ids
            offsets += [(at + start, at + end) for start, end in piece_offsets]
            at += len(piece) + 1
        places = [locate_span(offsets, span) for span in spans]
        return Located(np.array(ids, np.int32), places, offsets)

    def _fit(self, located: Located, text: str, spans: list[Span]) -> Example:
        located.places, spans = self._control.without_swallowed(
            located.ids, located.places, located.offsets, text, spans
        )
        self._control.check_ends(located.ids, located.places, spans)
        ids, places, limit = located.ids, located.places, self.max_length
        truncated = len(ids) > limit
        if truncated:
            if places and places[0][0] >= limit:
                detail = f"the prompt alone has {places[0][0]} tokens, the limit is {limit}"
                raise RejectedError("prompt_too_long", detail)
            if self.overflow == "drop":
                raise RejectedError("too_long", f"{len(ids)} tokens, the limit is {limit}")
            cut = located.offsets[limit - 1][1]
            ids = ids[:limit]
            places = [(first, min(end, limit)) for first, end in places if first < limit]
            spans = [Span(s.start, min(s.stop, cut), s.end) for s in spans if s.start < cut]
        example = Example(ids, places, sum(n_bytes(text, s) for s in spans), truncated)
        if not example.n_supervised:
            raise RejectedError("no_supervised_tokens", "its answers have no tokens")
        return example


def to_arrow(examples: Sequence[Example], domains: Sequence[int], rows: Sequence[str]) -> pa.Table:
    """Examples as rows of a store."""
    lengths = np.array([len(e.ids) for e in examples], dtype=np.int32)
    borders = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    flat = np.concatenate([np.array([], np.int32), *(e.ids for e in examples)])
    labels = np.full_like(flat, -100)
    for border, example in zip(borders.tolist(), examples, strict=False):
        for first, end in example.spans:
            labels[border + first : border + end] = flat[border + first : border + end]
    columns: list[Any] = [
        pa.ListArray.from_arrays(borders, flat),
        pa.ListArray.from_arrays(borders, labels),
        pa.array(domains, pa.int32()),
        pa.array(lengths),
        pa.array([e.n_supervised for e in examples], pa.int32()),
        pa.array([e.n_bytes for e in examples], pa.int32()),
        pa.array(rows, pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _pieces(text: str) -> list[str]:
    """Pieces by turns outside and inside the LITERAL marks; each mark stood between two."""
    start, end = LITERAL
    before, *rest = text.split(start)
    pieces = [before]
    for piece in rest:
        if piece.count(end) != 1:
            raise RejectedError("template", "the chat template splits a typed control token")
        pieces += piece.split(end)
    return pieces


def _encode_piece(
    tokenizer: Tokenizer, piece: str, *, first: bool
) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids and offsets of a piece; one that is not the first is encoded as going on a text.

    It is encoded after a line break, which is then cut off: many tokenizers put a blank before
    the beginning of a text, but not after a line break.
    """
    if not first:
        lead = tokenizer.encode("\n", add_special_tokens=False).ids
        found = tokenizer.encode("\n" + piece, add_special_tokens=False)
        if found.ids[: len(lead)] == lead:
            offsets = found.offsets[len(lead) :]
            return found.ids[len(lead) :], [(start - 1, end - 1) for start, end in offsets]
    found = tokenizer.encode(piece, add_special_tokens=False)
    return found.ids, found.offsets
