"""Tasks measured by lm-evaluation-harness: its own tasks by name, and checked local files.

A local file becomes a task of the harness (a dict, no YAML): the harness asks the model and
scores choices; it calls our functions to score texts and programs. In the chat format all
questions are encoded as training encodes a conversation (``language_model``); without it
the harness's own are measured exactly as it does, and compare with numbers published elsewhere."""

import difflib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from versatune.errors import VersatuneError
from versatune.evaluation import programs, ranks
from versatune.evaluation.at_work import at_work
from versatune.evaluation.choices import lacking, refuse_equal_tokens, refuse_lacking_tokens
from versatune.evaluation.config import EvaluateParams
from versatune.evaluation.examples import scored_items
from versatune.evaluation.results import (
    ANSWER_NATS,
    GROUP,
    ITEM_COLUMNS,
    ROW_COLUMNS,
    Measured,
    item_scores,
    named_row,
    score_row,
    table,
    task_version,
)
from versatune.evaluation.sandbox import run_program
from versatune.evaluation.tasks import LocalTask

if TYPE_CHECKING:
    from versatune.evaluation.thinking import Rows

logger = logging.getLogger(__name__)


def measure_local(
    task: LocalTask,
    params: EvaluateParams,
    model: Any,
    tokenizer: Any,
    thoughts: "Rows | None" = None,
) -> Measured | None:
    """Ask ``model`` the items of a checked file (the first ``params.limit``).

    ``thoughts``: how many of the domain's rows hold one; see ``thinking``.
    Several processes share the items, and the first has the result, the others None.
    """
    items = list(task.items[: params.limit])
    chat = params.code.apply_chat_template if task.runs_code else params.apply_chat_template
    refuse_equal_tokens(task, items, tokenizer, chat=chat)
    refuse_lacking_tokens(task, items, tokenizer, lacking(model, tokenizer))
    config = local_config(task, items, params)
    longest = max(len(tokenizer(text).input_ids) for text in _texts(task, items, chat)) + 64
    with at_work(offline=True):
        found = _evaluate_local(
            model, tokenizer, config, params, longest, chat, len(items), thoughts
        )
    if found is None:
        return None
    samples = sorted(found["samples"][task.name], key=lambda sample: sample["doc_id"])
    rows, scores = [], []
    metrics = METRICS[task.kind]
    if task.apart and task.kind == "multiple_choice":
        metrics = (*metrics, ANSWER_NATS)
        for sample in samples:
            score, _ = sample["filtered_resps"][sample["doc"]["answer"]]
            sample[ANSWER_NATS] = -float(score)
    for metric in metrics:
        values = [float(sample[metric]) for sample in samples]
        about = {"domain": task.domain, "task": task.label, "metric": metric}
        rows.append({**about, **score_row(values), "task_version": task.fingerprint})
        scores += scored_items(task, about, samples)
    return Measured(table(rows, ROW_COLUMNS), table(scores, ITEM_COLUMNS[1:]))


def measure_named(
    domain: str,
    name: str,
    params: EvaluateParams,
    model: Any,
    tokenizer: Any,
    thoughts: "Rows | None" = None,
) -> Measured | None:
    """Measure a task or group of the harness; a group gives its members' rows and its own, by a
    name that ends in :data:`~versatune.evaluation.results.GROUP`.

    Otherwise as :func:`measure_local`. Raises VersatuneError when the task's data is missing
    (``harness.offline``), or when it would run programs, which the harness does without a sandbox.
    """
    try:
        with at_work(offline=params.harness.offline):
            found = _evaluate_named(model, tokenizer, name, params, thoughts)
    except (OSError, ValueError) as error:
        hint = (
            " With harness.offline: false the hub is contacted." if params.harness.offline else ""
        )
        if "unsafe" in str(error):
            hint = " The harness has no sandbox: name the file in the domain's evaluation instead."
        raise VersatuneError(
            f"evaluate.harness.tasks.{domain}: the harness can't run {name!r}: {error}.{hint}"
        ) from error
    if found is None:
        return None
    rows, scores = [], []
    for task, metrics in found["results"].items():
        is_group = bool(found["group_subtasks"].get(task))
        about = {"domain": domain, "task": task + GROUP if is_group else task}
        of_task = {"task_version": task_version(task, found)}
        for key, value in metrics.items():
            metric, comma, chain = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            stderr = metrics.get(f"{metric}_stderr,{chain}")
            values = item_scores(found["samples"].get(task, []), metric, chain)
            label = metric if chain == "none" else f"{metric} ({chain})"
            row = named_row(float(value), stderr, values, metrics["sample_len"])
            rows.append({**about, "metric": label, **row, **of_task})
            scores += [
                {**about, "metric": label, "item": f"{task}:{i}", "score": s, "weight": 1.0}
                for i, s in values.items()
            ]
    return Measured(table(rows, ROW_COLUMNS), table(scores, ITEM_COLUMNS[1:]))


def check_names(names: Mapping[str, Sequence[str]], params: EvaluateParams) -> None:
    """Raise VersatuneError for a task the harness does not know, before any model is loaded."""
    with at_work(offline=True):
        known = _task_manager([n for tasks in names.values() for n in tasks], params).all_tasks
    for domain, tasks in names.items():
        for task in tasks:
            if task not in known:
                close = difflib.get_close_matches(task, known, n=3)
                hint = f" Did you mean {' or '.join(close)}?" if close else ""
                raise VersatuneError(
                    f"evaluate.harness.tasks.{domain}: the harness has no task {task!r}.{hint}"
                )


METRICS: dict[str, tuple[str, ...]] = {
    "multiple_choice": ("acc", "acc_norm"),
    "generation": ("exact_match",),
    "humaneval": ("pass@1",),
    "mbpp": ("pass@1",),
}


def local_config(
    task: LocalTask, items: list[dict[str, Any]], params: EvaluateParams
) -> dict[str, Any]:
    """The harness's configuration of a local file."""
    metrics = [
        {"metric": m, "aggregation": "mean", "higher_is_better": True} for m in METRICS[task.kind]
    ]
    config: dict[str, Any] = {
        "task": task.name,
        "test_split": "test",
        "num_fewshot": 0,
        "metric_list": metrics,
        "metadata": {"version": task.fingerprint},
    }
    if task.kind == "multiple_choice":
        fields = ("item", "question", "choices", "answer")
        documents = [{name: item[name] for name in fields} for item in items]
        return config | {
            "custom_dataset": _dataset(documents),
            "output_type": "multiple_choice",
            "doc_to_text": lambda doc: doc["question"],
            "doc_to_choice": lambda doc: doc["choices"],
            "doc_to_target": lambda doc: doc["answer"],
        }
    chat = params.code.apply_chat_template if task.runs_code else params.apply_chat_template
    if task.runs_code:
        stops, length = programs.stops(task.kind, chat), params.code.max_new_tokens
        score = _score_program(task, params)
    else:
        stops, length, score = [] if chat else ["\n"], params.max_new_tokens, _score_text
    documents = [
        {
            "item": item["item"],
            "question": _question(task, item, chat),
            "data": json.dumps(item),
        }
        for item in items
    ]
    return config | {
        "custom_dataset": _dataset(documents),
        "output_type": "generate_until",
        "doc_to_text": lambda doc: doc["question"],
        "doc_to_target": lambda doc: doc["item"],
        "process_results": score,
        "generation_kwargs": {"until": stops, "max_gen_toks": length, "do_sample": False},
    }


def _question(task: LocalTask, item: dict[str, Any], chat: bool) -> str:
    if task.runs_code:
        return programs.question(task.kind, item, chat)
    return str(item["question"])


def _score_text(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Whether the answer is the expected text, apart from white space."""
    wanted = json.loads(doc["data"])["answer"]
    return {"exact_match": float(results[0].split() == wanted.split())}


def _score_program(
    task: LocalTask, params: EvaluateParams
) -> Callable[[dict[str, Any], list[str]], dict[str, float]]:
    def score(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
        text = programs.program(
            task.kind, json.loads(doc["data"]), results[0], params.code.apply_chat_template
        )
        verdict = run_program(text, params.code.sandbox)
        logger.debug("%s: %s", doc["item"], verdict.reason)
        return {"pass@1": float(verdict.passed)}

    return score


def _texts(task: LocalTask, items: list[dict[str, Any]], chat: bool) -> Iterator[str]:
    """The longest row of each item."""
    for item in items:
        longest = max(item["choices"], key=len) if task.kind == "multiple_choice" else ""
        yield f"{_question(task, item, chat)} {longest}"


def _dataset(documents: list[dict[str, Any]]) -> Callable[..., Any]:
    def load(**_: Any) -> Any:
        import datasets

        return datasets.DatasetDict(test=datasets.Dataset.from_list(documents))

    return load


def _evaluate_local(
    model: Any,
    tokenizer: Any,
    config: dict[str, Any],
    params: EvaluateParams,
    longest: int,
    chat: bool,
    items: int,
    thoughts: "Rows | None",
) -> dict[str, Any] | None:
    """``evaluate`` and not ``simple_evaluate``: that one describes the machine each time (by
    running git and pip), which takes longer than most local files."""
    from lm_eval import evaluate

    from versatune.evaluation.language_model import AnswerLM, language_model
    from versatune.evaluation.thinking import Thinking

    if items < ranks.world() and ranks.rank():
        return None
    lm = language_model(AnswerLM, model, tokenizer, params.batch_size, longest)
    lm.shares = items >= ranks.world()
    lm.replies.thinking = thinking = Thinking(params.max_thought_tokens, thoughts)
    loaded = _index(None, include_defaults=False).load([config])
    result: dict[str, Any] | None = evaluate(
        lm=lm,
        task_dict=loaded,
        apply_chat_template=chat,
        bootstrap_iters=0,
    )
    thinking.tell(config["task"])
    return result


def _evaluate_named(
    model: Any, tokenizer: Any, name: str, params: EvaluateParams, thoughts: "Rows | None"
) -> dict[str, Any] | None:
    from lm_eval import simple_evaluate

    from versatune.evaluation.language_model import ConversationLM, language_model
    from versatune.evaluation.thinking import Thinking

    lm = language_model(ConversationLM, model, tokenizer, params.batch_size, longest=1024)
    lm.replies.thinking = thinking = Thinking(params.max_thought_tokens, thoughts)
    result: dict[str, Any] | None = simple_evaluate(
        model=lm,
        tasks=[name],
        limit=params.limit,
        num_fewshot=params.harness.num_fewshot,
        apply_chat_template=params.apply_chat_template,
        bootstrap_iters=1000,
        task_manager=_task_manager([name], params),
        random_seed=params.seed,
        numpy_random_seed=params.seed,
        torch_random_seed=params.seed,
        fewshot_random_seed=params.seed,
    )
    thinking.tell(name)
    return result


def _task_manager(names: Sequence[str], params: EvaluateParams) -> Any:
    """The harness's index of tasks; only the user's own folder's when it has all ``names``."""
    folder = params.harness.include_path
    own = _index(folder, include_defaults=False)
    return own if set(names) <= set(own.all_tasks) else _index(folder, include_defaults=True)


@cache
def _index(folder: Path | None, *, include_defaults: bool) -> Any:
    """Reading the harness's thousands of task files takes seconds: once is enough."""
    from lm_eval.tasks import TaskManager

    return TaskManager(
        include_path=None if folder is None else str(folder), include_defaults=include_defaults
    )
