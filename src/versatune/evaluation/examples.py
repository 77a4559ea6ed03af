"""Examples for the report: questions whose answer changed, and answers to held-out prompts."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from versatune.artifacts import FolderRef
from versatune.data.fields import RejectedError
from versatune.evaluation.config import EvaluateParams
from versatune.evaluation.results import ITEM_COLUMNS, ROW_COLUMNS, Measured, table, task_accuracies
from versatune.evaluation.tasks import LocalTask

if TYPE_CHECKING:
    from versatune.data.answers import Answers
    from versatune.data.thoughts import Written

ANSWER_COLUMNS = ("domain", "item", "prompt", "truth", "answer")
"""One model's answers to held-out prompts, a row a prompt."""

BOTH_COLUMNS = ("domain", "item", "prompt", "truth", "base", "tuned")
"""The ``answers`` table: both models' answers to the same prompts."""

CHANGED_COLUMNS = ("domain", "task", "item", "change", "question", "truth", "base", "tuned")
"""The ``changed_items`` table. ``change``: ``became right`` or ``became wrong``; ``base`` and
``tuned``: what each model answered."""


def scored_items(
    task: LocalTask, about: Mapping[str, str], samples: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Rows of ``evaluation_items`` of one metric (``about`` names it) of a local file."""
    metric = about["metric"]
    return [
        {
            **about,
            "item": sample["doc"]["item"],
            "score": float(sample[metric]),
            "weight": 1.0,
            "answer": answer_of(task, metric, sample),
        }
        for sample in samples
    ]


def answer_of(task: LocalTask, metric: str, sample: Mapping[str, Any]) -> str:
    """The choice that ``metric`` takes for the model's, or the text it wrote.

    ``sample``: one of the harness's, of a local file.
    """
    found = sample["filtered_resps"]
    if task.kind != "multiple_choice":
        return str(found[0])
    choices = sample["doc"]["choices"]
    lengths = [len(choice) if metric == "acc_norm" else 1 for choice in choices]
    scores = [float(score) / n for (score, _), n in zip(found, lengths, strict=True)]
    return str(choices[scores.index(max(scores))])


def answer_prompts(
    store: FolderRef, params: EvaluateParams, model: Any, tokenizer: Any
) -> Measured:
    """Greedy answers of ``model`` to ``params.examples`` report rows of every domain.

    A prompt is what the row holds before its first supervised token, so the models are asked
    as they are trained; the right answer is what follows. An answer ends where the template, the
    model or the tokenizer ends one, or after ``params.max_new_tokens``; a thought may take
    ``params.max_thought_tokens`` more, and is no part of an answer.
    """
    from versatune.data.answers import Answers, stop_tokens
    from versatune.data.store import TokenizedSplit
    from versatune.modeling.heldout import chosen_rows
    from versatune.modeling.losses import IGNORE

    split = TokenizedSplit.load(store, "report")
    own = model.generation_config.eos_token_id if model.generation_config else None
    ends = sorted({*stop_tokens(tokenizer, own), tokenizer.eos_token_id})
    answers = Answers(tokenizer)
    found: list[dict[str, Any]] = []
    for domain, rows in zip(split.domains, chosen_rows(split, params.examples), strict=True):
        for number in rows:
            row = split.dataset[int(number)]
            ids, labels = (row[name].tolist() for name in ("input_ids", "labels"))
            start = next(i for i, label in enumerate(labels) if i and label != IGNORE)
            stop = next((i for i in range(start, len(ids)) if labels[i] == IGNORE), len(ids))
            asked = answers.decoded(ids[:start])
            made = _generated(model, ids[:start], ends, params.max_new_tokens)
            if len(made) >= params.max_new_tokens and _read(answers, asked, made, ends):
                room = params.max_new_tokens + params.max_thought_tokens
                made = _generated(model, ids[:start], ends, room)
            prompted = answers.decoded(ids[:start], control=False).strip()
            truth, answer = (_said(answers, asked, part, ends) for part in (ids[start:stop], made))
            about = {"domain": domain, "item": f"report:{number}"}
            found.append({**about, "prompt": prompted, "truth": truth, "answer": answer})
    nothing = table([], ROW_COLUMNS), table([], ITEM_COLUMNS[1:])
    return Measured(*nothing, answers=table(found, ANSWER_COLUMNS))


UNENDED = "(no answer: the thought did not end)"


def _generated(model: Any, prompt: list[int], ends: list[int], tokens: int) -> list[int]:
    """The model's greedy continuation."""
    import torch
    from transformers import GenerationConfig

    from versatune.modeling.caching import generates_with_cache

    config = model.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None) or len(prompt) + tokens
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=min(tokens, max(1, positions - len(prompt))),
        eos_token_id=ends,
        pad_token_id=ends[0],
        use_cache=generates_with_cache(model),
    )
    asked = torch.tensor([prompt], device=next(model.parameters()).device)
    with torch.no_grad():
        made = model.generate(
            asked, attention_mask=torch.ones_like(asked), generation_config=settings
        )
    tokens_made: list[int] = made[0, len(prompt) :].tolist()
    return tokens_made


def _read(answers: "Answers", prompt: str, ids: list[int], ends: list[int]) -> "Written | None":
    """An answer that has a thought, read as the template writes it."""
    text = answers.decoded([token for token in ids if token not in ends])
    try:
        written = answers.read_behind(prompt, text)
    except RejectedError:  # rows of documents under a template that shows no conversation
        return None
    return written if written.lead is not None else None


def _said(answers: "Answers", prompt: str, ids: list[int], ends: list[int]) -> str:
    """The text of an answer without its thought."""
    written = _read(answers, prompt, ids, ends)
    if written is None:
        return answers.decoded(ids, control=False).strip()
    return written.content.strip() if written.ended else UNENDED


def both_answers(base: pd.DataFrame, tuned: pd.DataFrame) -> pd.DataFrame:
    """The ``answers`` table, from those of each model to the same prompts."""
    keys = ["domain", "item", "prompt", "truth"]
    before, after = (
        found.rename(columns={"answer": name}) for found, name in ((base, "base"), (tuned, "tuned"))
    )
    return before.merge(after, on=keys, validate="1:1")[list(BOTH_COLUMNS)]


def changed_items(
    items: pd.DataFrame, tasks: Iterable[LocalTask], base: str, tuned: str
) -> pd.DataFrame:
    """The ``changed_items`` table: every question of a local file that only one model got right.

    ``items``: the ``evaluation_items`` table with both models. Right is what the task's accuracy
    counts as right.
    """
    asked = {(t.domain, item["item"]): (t, item) for t in tasks for item in t.items}
    scored = task_accuracies(items, by=("model", "item"))
    keys = ["domain", "task", "metric", "item"]
    before, after = (scored[scored["model"] == name] for name in (base, tuned))
    pairs = before.merge(after, on=keys, suffixes=("_base", "_tuned"))
    rows = []
    for row in pairs[pairs["score_base"] != pairs["score_tuned"]].to_dict("records"):
        task, item = asked.get((row["domain"], row["item"]), (None, None))
        if task is None or item is None:
            continue
        rows.append(
            {
                "domain": row["domain"],
                "task": row["task"],
                "item": row["item"],
                "change": "became right" if row["score_tuned"] == 1 else "became wrong",
                "question": task.question(item),
                "truth": task.truth(item),
                "base": row["answer_base"],
                "tuned": row["answer_tuned"],
            }
        )
    return table(rows, CHANGED_COLUMNS)
