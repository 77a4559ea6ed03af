"""Questions that a model can't be asked: choices with equal tokens, tokens without embeddings."""

import contextlib
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel

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


def lacking(model: Any, tokenizer: Any) -> int | None:
    """The first token of the tokenizer that the model has no embedding for.

    None if it has all, or if another engine, which checks itself, runs it.
    """
    if not isinstance(model, PreTrainedModel):
        return None
    embeddings: Any = model.get_input_embeddings()
    known = int(embeddings.weight.shape[0])
    return known if len(tokenizer) > known else None


def lacking_words(tokenizer: Any, token: int) -> str:
    """The error for a question with ``token``, for which the model has no embedding."""
    return (
        f"a question holds the token {token} ({tokenizer.convert_ids_to_tokens(token)!r}), which "
        "the model has no embedding for: call model.resize_token_embeddings(len(tokenizer)) on the "
        "base model and save both"
    )


def refuse_lacking_tokens(
    task: LocalTask, items: Sequence[Item], tokenizer: Any, first: int | None
) -> None:
    """Raise VersatuneError with file and line for an item that holds a token from ``first`` on."""
    for item in items if first is not None else ():
        texts = [task.question(item), *item.get("choices", ())]
        for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]:
            if max(ids, default=0) >= (first or 0):
                line = item["item"].rpartition(":")[2]
                raise VersatuneError(f"{task.path}:{line}: {lacking_words(tokenizer, max(ids))}.")


def _tokens(item: Item, tokenizer: Any, answers: Answers | None) -> list[list[int]]:
    if answers is not None:
        asked = [{"role": "user", "content": item["question"]}]
        with contextlib.suppress(RejectedError):  # said when the question is asked
            return [row.ids for row in answers.encode(asked, item["choices"])]
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in item["choices"]]
