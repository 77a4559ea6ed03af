"""lm-evaluation-harness at work on a tiny real model, checked against the model itself."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from versatune.artifacts import FolderRef
from versatune.errors import VersatuneError
from versatune.evaluation import harness
from versatune.evaluation import measure as run
from versatune.evaluation.config import CodeParams, EvaluateParams, HarnessParams
from versatune.evaluation.forgetting import changes
from versatune.evaluation.padding import MAX_BATCH, batch_size
from versatune.evaluation.results import Measured, task_accuracies
from versatune.evaluation.sandbox import refusal
from versatune.evaluation.tasks import LocalTask, read_task
from versatune.modeling.checkpoints import CheckpointRef, load_model, load_tokenizer

QUESTIONS = [
    {"question": "what is a court", "choices": ["a judge", "drug dose and heart"], "answer": 0},
    {"question": "why", "choices": ["loan", "bank", "river and map"], "answer": 2},
    {"question": "how does light treat", "choices": ["a", "cell", "of", "poem the"], "answer": 1},
    {"question": "what is the mean of a share", "choices": ["loop", "list"], "answer": 1},
    {"question": "return", "choices": ["string", "map", "to in"], "answer": 0},
]


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint: CheckpointRef) -> tuple[Any, Any]:
    return load_model(tiny_checkpoint, dtype="float32"), load_tokenizer(tiny_checkpoint)


def params(**changes: Any) -> EvaluateParams:
    return EvaluateParams(**changes)


def written(tmp_path: Path, items: list[dict[str, Any]], name: str = "task") -> LocalTask:
    path = tmp_path / f"{name}.jsonl"
    path.write_text("\n".join(map(json.dumps, items)), encoding="utf-8")
    return read_task("law", name, path)


def logprob(model: Any, tokenizer: Any, context: str, continuation: str) -> float:
    ids = tokenizer(context, add_special_tokens=False).input_ids
    more = tokenizer(continuation, add_special_tokens=False).input_ids
    with torch.no_grad():
        logits = model(torch.tensor([ids + more])).logits[0].log_softmax(-1)
    return sum(float(logits[len(ids) + i - 1, t]) for i, t in enumerate(more))


@pytest.mark.parametrize("size", ["auto", 2])
def test_choices_are_scored_as_the_model_scores_them(
    loaded: tuple[Any, Any], tmp_path: Path, size: Any
) -> None:
    """Any number of choices; acc by the sum of log-probabilities, acc_norm by the same a letter.

    The line break that ends the chat format is part of the question, not of each choice.
    """
    model, tokenizer = loaded
    found = harness.measure_local(
        written(tmp_path, QUESTIONS), params(batch_size=size), model, tokenizer
    )
    expected: dict[str, list[float]] = {"acc": [], "acc_norm": []}
    for item in QUESTIONS:
        context = tokenizer.apply_chat_template(
            [{"role": "user", "content": item["question"]}],
            tokenize=False,
            add_generation_prompt=True,
        )
        choices = item["choices"]
        assert context.endswith("\n")
        scores = [logprob(model, tokenizer, context, choice) for choice in choices]
        by_letter = [s / len(c) for s, c in zip(scores, choices, strict=True)]
        expected["acc"].append(float(scores.index(max(scores)) == item["answer"]))
        expected["acc_norm"].append(float(by_letter.index(max(by_letter)) == item["answer"]))
    scores_of = found.items.groupby("metric", sort=False)["score"].apply(list)
    assert scores_of.to_dict() == expected
    row = found.rows.set_index("metric").loc["acc"]
    assert row["n"] == 5 and row["value"] == sum(expected["acc"]) / 5
    assert row["low"] <= row["value"] <= row["high"]


@pytest.mark.parametrize("chat", [True, False])
def test_a_file_apart_is_asked_alike_and_has_the_nats_of_its_answers(
    loaded: tuple[Any, Any], tmp_path: Path, chat: bool
) -> None:
    model, tokenizer = loaded
    settings = params(apply_chat_template=chat)
    task = written(tmp_path, QUESTIONS)
    counted = harness.measure_local(task, settings, *loaded)
    apart = harness.measure_local(dataclasses.replace(task, apart=True), settings, *loaded)
    assert counted is not None and apart is not None
    assert set(apart.rows["task"]) == {"task (apart)"}
    rows, plain = (found.rows.set_index("metric")["value"] for found in (apart, counted))
    assert rows[["acc", "acc_norm"]].to_dict() == plain.to_dict()
    nats = []
    for item in QUESTIONS:
        # A text without the chat format begins as documents do in training.
        context, answer = tokenizer.bos_token + item["question"], item["choices"][item["answer"]]
        if chat:
            asked = [{"role": "user", "content": item["question"]}]
            context = tokenizer.apply_chat_template(
                asked, tokenize=False, add_generation_prompt=True
            )
        nats.append(-logprob(model, tokenizer, context, answer if chat else f" {answer}"))
    scores = apart.items[apart.items["metric"] == "answer_nats"]["score"].tolist()
    assert scores == pytest.approx(nats, rel=1e-5)
    assert rows["answer_nats"] == pytest.approx(sum(nats) / 5)
    # Nobody's accuracy: what is counted leaves it out.
    both = pd.concat([counted.rows, apart.rows])
    assert task_accuracies(both)["task"].tolist() == ["task"]


def test_the_chat_format_changes_the_question(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    config = harness.local_config(written(tmp_path, QUESTIONS), QUESTIONS[:0], params())
    assert config["doc_to_text"]({"question": "q"}) == "q"
    found = harness.measure_local(
        written(tmp_path, QUESTIONS), params(apply_chat_template=False, limit=3), *loaded
    )
    assert list(found.rows["n"]) == [3, 3]
    assert [i.rpartition(":")[2] for i in found.items["item"][:3]] == ["1", "2", "3"]


def test_questions_longer_than_the_model_are_asked_from_their_end(
    loaded: tuple[Any, Any], tmp_path: Path
) -> None:
    """The model reads 256 tokens; what does not fit is left out at the front, as lm-eval does."""
    long = [{**item, "question": "the court " * 400 + item["question"]} for item in QUESTIONS]
    longer = [{**item, "question": "the court " * 800 + item["question"]} for item in QUESTIONS]
    settings = params(apply_chat_template=False)
    found = [
        harness.measure_local(written(tmp_path, items), settings, *loaded)
        for items in (long, longer)
    ]
    assert list(found[0].rows["n"]) == [5, 5]
    assert found[0].items["score"].tolist() == found[1].items["score"].tolist()
    asked = [{"question": "why " * 400, "answer": "x"}]
    assert harness.measure_local(written(tmp_path, asked), settings, *loaded).rows["n"][0] == 1


def test_the_longest_row_of_each_question(tmp_path: Path) -> None:
    task = written(tmp_path, QUESTIONS[:2])
    rows = list(harness._texts(task, list(task.items), chat=False))
    assert rows == ["what is a court drug dose and heart", "why river and map"]


def test_texts_match_exactly_up_to_white_space(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    """The model's own greedy answer, found beforehand, is right; another is not."""
    model, tokenizer = loaded
    ids = torch.tensor([tokenizer("why is the judge").input_ids])
    said = model.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :]
    answer = tokenizer.decode(said, skip_special_tokens=True)
    items = [
        {"question": "why is the judge", "answer": f"  {answer}\n"},
        {"question": "why is the judge", "answer": f"{answer} and more"},
    ]
    settings = params(max_new_tokens=6, apply_chat_template=False)
    task = written(tmp_path, items)
    found = harness.measure_local(task, settings, *loaded)
    assert list(found.items["score"]) == [1.0, 0.0]
    assert list(found.rows["metric"]) == ["exact_match"]
    assert list(found.rows["task_version"]) == [task.fingerprint]


@pytest.mark.skipif(refusal() is not None, reason=f"no isolation here: {refusal()}")
def test_programs_are_run_and_counted(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    """A random model solves nothing, but a task whose tests ask for nothing is passed."""
    items = [
        {"text": "Write f.", "test_list": ["assert f() == 1"]},
        {"text": "Write f.", "test_list": ["assert f() == 2"]},
    ]
    code = CodeParams(run=True, max_new_tokens=4)
    found = harness.measure_local(written(tmp_path, items), params(code=code), *loaded)
    assert list(found.items["score"]) == [0.0, 0.0]
    assert found.rows["metric"].item() == "pass@1"
    empty = {"prompt": "f = 1  #", "test": "def check(f): pass", "entry_point": "f"}
    found = harness.measure_local(written(tmp_path, [empty], "h"), params(code=code), *loaded)
    assert list(found.items["score"]) == [1.0]


@pytest.fixture(scope="module")
def own_tasks(tmp_path_factory: pytest.TempPathFactory) -> HarnessParams:
    """Two tasks and their group in the harness's own YAML, with their data beside them."""
    tmp_path = tmp_path_factory.mktemp("harness")
    data = tmp_path / "items.jsonl"
    data.write_text("\n".join(map(json.dumps, QUESTIONS)), encoding="utf-8")
    folder = tmp_path / "yaml"
    folder.mkdir()
    for name, more in (("courts", ""), ("judges", ""), ("unsafe", "unsafe_code: true")):
        (folder / f"{name}.yaml").write_text(
            f"""
task: versatune_{name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{data}"}}, cache_dir: "{tmp_path / "cache"}"}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
metadata: {{version: 3}}
{more}
""",
            encoding="utf-8",
        )
    (folder / "law.yaml").write_text(
        """
group: versatune_law
task: [versatune_courts, versatune_judges]
aggregate_metric_list:
  - {metric: acc, weight_by_size: true}
""",
        encoding="utf-8",
    )
    return HarnessParams(tasks={"law": ("versatune_courts",)}, include_path=folder)


def test_a_task_by_its_name_in_the_harness(
    loaded: tuple[Any, Any], own_tasks: HarnessParams
) -> None:
    settings = params(harness=own_tasks, apply_chat_template=False)
    harness.check_names(own_tasks.tasks, settings)
    found = harness.measure_named("law", "versatune_courts", settings, *loaded)
    row = found.rows.set_index("metric").loc["acc"]
    assert (row["n"], row["task_version"], row["domain"]) == (5, "3", "law")
    assert math.isclose(row["value"], found.items["score"].mean())


def test_a_group_has_its_members_rows_and_one_of_its_own(
    loaded: tuple[Any, Any], own_tasks: HarnessParams
) -> None:
    settings = params(harness=own_tasks, apply_chat_template=False)
    harness.check_names({"law": ("versatune_law",)}, settings)
    rows = harness.measure_named("law", "versatune_law", settings, *loaded).rows
    rows = rows[rows["metric"] == "acc"].set_index("task")
    own, members = rows.loc["versatune_law (group)"], rows.drop("versatune_law (group)")
    assert sorted(members.index) == ["versatune_courts", "versatune_judges"]
    assert own["value"] == pytest.approx(members["value"].mean())
    assert own["n"] == members["n"].sum() == 10
    assert own["low"] < own["value"] < own["high"] and own["stderr"] > 0
    assert own["task_version"] == "members: 3"


def test_a_group_and_its_member_bring_a_task_once_and_the_group_is_none(
    tiny_checkpoint: CheckpointRef, tiny_store: FolderRef, own_tasks: HarnessParams, tmp_path: Path
) -> None:
    named = own_tasks.model_copy(update={"tasks": {"law": ("versatune_law", "versatune_courts")}})
    settings = EvaluateParams(rows_per_domain=2, harness=named, apply_chat_template=False)

    def measured(model: str, tasks: list[LocalTask]) -> Measured:
        return run.evaluate_checkpoint(
            tiny_checkpoint,
            model=model,
            store=tiny_store,
            tasks=tasks,
            params=settings,
            folder=tmp_path / "kept",
        )

    one, two = (measured(model, []) for model in ("base", "tuned"))
    rows, items = (pd.concat([getattr(m, part) for m in (one, two)]) for part in ("rows", "items"))
    assert not rows.duplicated(["model", "domain", "task", "metric"]).any()
    assert len(items[items["task"] == "versatune_courts"]) == 2 * 5
    found = changes(rows, items, "base", "tuned")
    assert set(task_accuracies(found)["task"]) == {"versatune_courts", "versatune_judges"}
    assert "versatune_law (group)" in set(found["task"])
    same_name = written(tmp_path, QUESTIONS, "versatune_judges")
    with pytest.raises(VersatuneError, match="two tasks of law are called 'versatune_judges'"):
        measured("base", [same_name])


@pytest.mark.slow
def test_a_task_nobody_knows_is_refused_with_a_hint(own_tasks: HarnessParams) -> None:
    settings = params(harness=own_tasks)
    with pytest.raises(VersatuneError, match=r"tasks\.law: .*'versatune_cour'.*versatune_courts"):
        harness.check_names({"law": ("versatune_cour",)}, settings)


def test_a_task_that_would_run_programs_outside_the_sandbox_is_refused(
    loaded: tuple[Any, Any], own_tasks: HarnessParams
) -> None:
    settings = params(harness=own_tasks, code=CodeParams(run=True))
    with pytest.raises(VersatuneError, match=r"versatune_unsafe.*unsafe.*has no sandbox: name the"):
        harness.measure_named("code", "versatune_unsafe", settings, *loaded)


@pytest.mark.slow
def test_a_task_without_its_data_says_so(loaded: tuple[Any, Any], own_tasks: HarnessParams) -> None:
    settings = params(harness=own_tasks)
    with pytest.raises(VersatuneError, match=r"can't run 'sciq'.*harness\.offline: false"):
        harness.measure_named("science", "sciq", settings, *loaded)


def test_batch_size_is_a_rule() -> None:
    assert batch_size(vocabulary=49_152, longest=256) == 15
    assert batch_size(vocabulary=400, longest=100) == MAX_BATCH
    assert batch_size(vocabulary=250_000, longest=8192) == 1
