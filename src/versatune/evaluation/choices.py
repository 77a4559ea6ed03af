"""Choices with different texts that are the same to a model."""

import contextlib
from collections.abc import Sequence
from typing import Any

from versatune.data.answers import Answers
from versatune.data.fields import RejectedError
from versatune.errors import VersatuneError
from versatune.evaluation.tasks import Item, LocalTask


def refuse_equal_tokens(
    task: LocalTask, items: Sequence[Item], tokenizer: Any, *, chat: bool
) -> None:
    """Raise VersatuneError with file and line for an item of which two choices have one text.

    A tokenizer may fold case, accents or unknown words together, and a template may trim or change
    contents: such choices have the same score, and the first of them would be taken as the answer.
    ``chat``: whether items are asked in the chat format.
    """
    if task.kind != "multiple_choice":
        return
    answers = Answers(tokenizer) if chat else None
    for item in items:
        choices = item["choices"]
        seen: dict[tuple[int, ...], str] = {}
        for choice, ids in zip(choices, _tokens(item, tokenizer, answers), strict=True):
            if (other := seen.setdefault(tuple(ids), choice)) is not choice:
                line = item["item"].rpartition(":")[2]
                raise VersatuneError(
                    f"{task.path}:{line}: the choices {other!r} and {choice!r} are the same tokens "
                    "to this model, so the right one can't be known."
                )


def _tokens(item: Item, tokenizer: Any, answers: Answers | None) -> list[list[int]]:
    if answers is not None:
        asked = [{"role": "user", "content": item["question"]}]
        with contextlib.suppress(RejectedError):  # said when the question is asked
            return [row.ids for row in answers.encode(asked, item["choices"])]
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in item["choices"]]
