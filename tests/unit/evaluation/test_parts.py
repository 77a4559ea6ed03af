"""What an evaluation is made of: names, what each part's numbers hang on, and how parts join."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from versatune.artifacts import FolderRef
from versatune.errors import VersatuneError
from versatune.evaluation import measure
from versatune.evaluation.config import EvaluateParams
from versatune.evaluation.measure import Part, _join, parts_of
from versatune.evaluation.results import COLUMNS, ITEM_COLUMNS, Measured, library_versions
from versatune.evaluation.tasks import LocalTask, read_task
from versatune.modeling.checkpoints import CheckpointRef


@pytest.fixture
def store(tmp_path: Path) -> FolderRef:
    metadata = {"domains": ["law", "code"], "thoughts": {"law": "some"}}
    return FolderRef(path=tmp_path, fingerprint="store", metadata=metadata)


def task(folder: Path, domain: str, name: str, **item: Any) -> LocalTask:
    path = folder / f"{domain}_{name}.jsonl"
    path.write_text(json.dumps(item or {"question": "What?", "answer": "this"}) + "\n")
    return read_task(domain, name, path)


PROGRAM = {"prompt": "def f():", "test": "assert f()", "entry_point": "f"}


def test_the_parts_of_an_evaluation(store: FolderRef, tmp_path: Path) -> None:
    """Held-out losses, files, tasks of the harness; each with its domain's thoughts."""
    questions = task(tmp_path, "law", "bar")
    programs = task(tmp_path, "code", "code", **PROGRAM)
    params = EvaluateParams.model_validate(
        {"code": {"run": True}, "harness": {"tasks": {"Law": ["one", "two"]}}, "limit": 7}
    )
    found = parts_of(store, [questions, programs], params)
    assert [part.name for part in found] == [
        "held_out",
        "law-bar",
        "code-code",
        "law-one",
        "law-two",
    ]
    assert [part.title for part in found] == [
        "held-out losses",
        "law-bar",
        "code",
        "law-one",
        "law-two",
    ]
    versions = library_versions()
    held_out, bar, code, one, _ = (part.inputs for part in found)
    assert held_out == {"versions": versions, "store": "store", **params.of_heldout()}
    assert bar == {
        "versions": versions,
        "task": questions.fingerprint,
        **params.of_file("generation"),
        "thoughts": "some",
    }
    assert code == {
        "versions": versions,
        "task": programs.fingerprint,
        **params.of_file("humaneval"),
        "thoughts": None,
    }
    assert one == {
        "versions": versions,
        "harness": "one",
        **params.of_harness(),
        "thoughts": "some",
    }
    assert bar["limit"] == 7


def test_programs_are_left_out_and_no_thoughts_are_none(store: FolderRef, tmp_path: Path) -> None:
    programs = task(tmp_path, "code", "programs", **PROGRAM)
    plain = store.model_copy(update={"metadata": {"domains": ["law", "code"]}})
    questions = task(tmp_path, "law", "bar")
    found = parts_of(plain, [programs, questions], EvaluateParams())
    assert [part.name for part in found] == ["held_out", "law-bar"]
    assert found[1].inputs["thoughts"] is None


def test_two_parts_of_one_name_are_refused(store: FolderRef, tmp_path: Path) -> None:
    params = EvaluateParams.model_validate({"harness": {"tasks": {"law": ["bar-exam"]}}})
    with pytest.raises(VersatuneError) as told:
        parts_of(store, [task(tmp_path, "law", "bar-exam")], params)
    assert str(told.value) == (
        "two tasks of law are called 'bar-exam': name each task once in evaluate.harness.tasks, "
        "and give a file in domains.law.evaluation another `task`."
    )


def test_a_task_of_its_domains_name_is_called_like_it() -> None:
    titles = [Part(name, {}, lambda *_: None).title for name in ("law-law", "law-law-2", "a-b")]
    assert titles == ["law", "law-law-2", "a-b"]


@pytest.mark.parametrize(
    ("parallelize", "gpus", "devices"), [(True, 3, 3), (True, 0, 1), (False, 3, 1)]
)
def test_room_is_that_of_the_devices_that_share_a_model(
    monkeypatch: pytest.MonkeyPatch, parallelize: bool, gpus: int, devices: int
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(measure.torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(measure, "check_room", lambda *_, **how: asked.append(how))
    monkeypatch.setattr(measure, "load_model", lambda *_, **__: torch.nn.Linear(1, 1))
    measure._load(CHECKPOINT, EvaluateParams(parallelize=parallelize, dtype="float32"))
    assert asked == [{"dtype": "float32", "key": "evaluate", "devices": devices}]


def test_several_processes_measure_together(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[Any, int]] = []
    monkeypatch.setattr(measure.ranks, "together", lambda *given: started.append(given))
    params = EvaluateParams(processes=2)
    measure._measure(CHECKPOINT, [], params)
    ((function, processes),) = started
    assert processes == 2 and function.func is measure._measure_open
    assert function.args == (CHECKPOINT, [], params)


CHECKPOINT = CheckpointRef(path=Path("model"), fingerprint="checkpoint", name="tuned")


def measured(task: str, version: str = "1", items: tuple[str, ...] = ("a", "b")) -> Measured:
    rows = {
        "domain": "law",
        "task": task,
        "metric": "acc",
        "value": 0.5,
        "stderr": 0.5,
        "low": 0.1,
        "high": 0.9,
        "n": 2,
        "task_version": version,
        "versions": "torch 2",
    }
    each = [
        {
            "domain": "law",
            "task": task,
            "metric": "acc",
            "item": item,
            "score": 1.0,
            "weight": 1.0,
            "answer": None,
        }
        for item in items
    ]
    return Measured(pd.DataFrame([rows]), pd.DataFrame(each))


def test_parts_are_joined_and_what_is_measured_twice_counts_once() -> None:
    answers = pd.DataFrame({"domain": ["law"], "prompt": ["What?"]})
    one, other = measured("one"), measured("two", items=("a",))
    nothing = Measured(one.rows[:0], one.items[:0])
    with_answers = Measured(other.rows, other.items, answers)
    found = _join("tuned", CHECKPOINT, [one, nothing, with_answers, measured("one")])
    assert list(found.rows.columns) == list(COLUMNS)
    assert found.rows["task"].tolist() == ["one", "two"]
    assert set(found.rows["model"]) == {"tuned"}
    assert set(found.rows["checkpoint"]) == {"checkpoint"}
    assert found.rows.index.tolist() == [0, 1]
    assert list(found.items.columns) == list(ITEM_COLUMNS)
    assert found.items[["task", "item"]].to_numpy().tolist() == [
        ["one", "a"],
        ["one", "b"],
        ["two", "a"],
    ]
    assert set(found.items["model"]) == {"tuned"} and found.items.index.tolist() == [0, 1, 2]
    assert found.answers is answers


def test_one_name_of_two_versions_is_two_tasks() -> None:
    with pytest.raises(VersatuneError, match=re.escape("two tasks of law are called 'one'")):
        _join("tuned", CHECKPOINT, [measured("one"), measured("one", "2")])


def test_without_answers_their_table_is_empty() -> None:
    found = _join("base", CHECKPOINT, [measured("one")])
    assert not len(found.answers) and "domain" in found.answers.columns
