"""A user's turn as the chat template writes it: what opens it, what ends it, what follows.

With only the opening for a prompt, a chat model writes what it might be asked, and after the
turn's end its answer (Magpie, arXiv 2406.08464).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from versatune.data.answers import Answers
from versatune.data.conversations import Messages
from versatune.data.encode import Example
from versatune.data.fields import RejectedError
from versatune.data.templates import Span
from versatune.data.thoughts import CONTENT, Written
from versatune.errors import VersatuneError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WORDS = ("What", "How", "I", "the", "a")
"""One of them takes the blank that an opening ends with into its first token, as questions do."""


@dataclass(frozen=True)
class UserTurn:
    """The template's own text around a user's turn, and its tokens."""

    opening: str
    """Before what the user says; a default system prompt is part of it."""
    opening_ids: list[int]
    handover: str
    """From the end of what the user says up to the answer."""
    handover_ids: list[int]
    end_id: int | None
    """The first control token of the handover; None where only words end the turn."""
    end: str
    """The same as text: the control token, or the handover's words."""
    read: Callable[[str], Written] = field(default=Written, compare=False, repr=False)
    """Reads an answer that was written behind the handover, its thought apart."""


def user_turn(tokenizer: "PreTrainedTokenizerBase") -> UserTurn:
    """How a conversation begins under the tokenizer's template.

    Raises VersatuneError for a tokenizer without a template, or with one that shows no user.
    """
    answers = Answers(tokenizer)
    template = answers.encoder.template
    try:
        text = template.render_text(_asked(CONTENT), prompt=True)
        opening, shown, handover = text.partition(CONTENT)
        if not shown:
            raise RejectedError("template", "the chat template does not show what a user says")
        tried = [_tokens(answers, opening, word) for word in _WORDS]
    except RejectedError as error:
        raise VersatuneError(
            f"{tokenizer.name_or_path}: its chat template has no user's turn to begin with "
            f"({error}): begin samples with a token (probe.sampling.start: bos)."
        ) from error
    opening_ids, handover_ids = min(tried, key=lambda found: len(found[0]))
    control = template.control.search(handover)
    end = control.group() if control else handover.strip() or handover
    vocabulary = tokenizer.get_vocab()
    end_id = vocabulary[end] if control else None
    if end_id not in handover_ids:
        end_id = None
    return UserTurn(opening, opening_ids, handover, handover_ids, end_id, end, answers.read)


def _asked(said: str) -> Messages:
    return [{"role": "user", "content": said}]


def _tokens(answers: Answers, opening: str, word: str) -> tuple[list[int], list[int]]:
    """The tokens before and after a user's ``word`` in what an answer is written after."""
    prompt = answers.prompt(_asked(word))
    text = answers.encoder.template.render_text(_asked(word), prompt=True)
    if not text.startswith(opening + word):
        raise RejectedError("template", "the chat template changes what a user says")
    end = len(opening) + len(word)
    (example,) = answers.encoder.encode_rendered([(text, [Span(len(opening), end, end)])])
    if not isinstance(example, Example):
        raise example
    ((first, end),) = example.spans
    return prompt[:first], prompt[end:]
