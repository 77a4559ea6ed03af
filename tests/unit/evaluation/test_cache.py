"""What was measured is kept, by checkpoint, task and the versions of the libraries."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from versatune.artifacts import FolderRef, to_jsonable
from versatune.errors import VersatuneError
from versatune.evaluation import config
from versatune.evaluation import measure as run
from versatune.evaluation.config import CodeParams, EvaluateParams, HarnessParams
from versatune.evaluation.results import LIBRARIES, library_versions
from versatune.evaluation.tasks import read_task
from versatune.modeling.checkpoints import CheckpointRef
from versatune.params import warn_renamed


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows with every model that is loaded."""
    real, found = run.load_model, []

    def counted(*args: Any, **kwargs: Any) -> Any:
        found.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(run, "load_model", counted)
    return found


def test_a_number_is_kept_until_a_library_changes(
    tiny_checkpoint: CheckpointRef,
    tiny_store: FolderRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    loads: list[Any],
) -> None:
    def rows() -> pd.DataFrame:
        params = EvaluateParams(rows_per_domain=2)
        found = run.evaluate_checkpoint(
            tiny_checkpoint,
            model="base",
            store=tiny_store,
            tasks=[],
            params=params,
            folder=tmp_path / "kept",
        )
        assert not len(found.answers), "nobody asked for them"
        return found.rows

    first = rows()
    assert all(f"{name} {library_versions()[name]}" in first["versions"][0] for name in LIBRARIES)
    assert first.notna().all(axis=None)
    pd.testing.assert_frame_equal(rows(), first)
    assert len(loads) == 1
    newer = library_versions() | {"transformers": "99.0"}
    monkeypatch.setattr(run, "library_versions", lambda: newer)
    rows()
    assert len(loads) == 2


def test_a_changed_file_is_measured_again_and_nothing_else(
    tiny_checkpoint: CheckpointRef,
    tiny_store: FolderRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    loads: list[Any],
) -> None:
    asked: list[str] = []
    real = run.harness.measure_local

    def counted(task: Any, *rest: Any, **more: Any) -> Any:
        asked.append(task.name)
        return real(task, *rest, **more)

    monkeypatch.setattr(run.harness, "measure_local", counted)

    def rows(answer: int) -> pd.DataFrame:
        tasks = []
        for name, right in (("courts", answer), ("kept", 0)):
            path = tmp_path / f"{name}.jsonl"
            item = {"question": "why", "choices": ["a judge", "loan"], "answer": right}
            path.write_text(json.dumps(item), encoding="utf-8")
            tasks.append(read_task("law", name, path))
        params = EvaluateParams(rows_per_domain=2)
        return run.evaluate_checkpoint(
            tiny_checkpoint,
            model="base",
            store=tiny_store,
            tasks=tasks,
            params=params,
            folder=tmp_path / "kept",
        ).rows.set_index(["task", "metric"])

    first, second = rows(0), rows(1)
    assert asked == ["courts", "kept", "courts"] and len(loads) == 2
    assert first.loc[("courts", "acc"), "value"] == 1 - second.loc[("courts", "acc"), "value"]
    versions = [found.loc[("courts", "acc"), "task_version"] for found in (first, second)]
    assert versions[0] != versions[1]


def test_programs_are_left_out_unless_asked_for(
    tiny_checkpoint: CheckpointRef,
    tiny_store: FolderRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a program was run")

    monkeypatch.setattr("versatune.evaluation.harness.run_program", refuse)
    monkeypatch.setattr(run, "check_isolation", refuse)
    path = tmp_path / "programs.jsonl"
    path.write_text(json.dumps({"text": "Write f.", "test_list": ["assert f()"]}))
    found = run.evaluate_checkpoint(
        tiny_checkpoint,
        model="base",
        store=tiny_store,
        tasks=[read_task("code", "programs", path)],
        params=EvaluateParams(rows_per_domain=2),
        folder=tmp_path / "kept",
    )
    assert set(found.rows["task"]) == {"held_out"}
    assert "programs.jsonl (code) is left out" in caplog.text
    assert "evaluate.code.run is false" in caplog.text


def test_held_out_rows_are_kept_by_how_they_are_chosen_and_not_by_the_seed(
    tiny_checkpoint: CheckpointRef,
    tiny_store: FolderRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    loads: list[Any],
) -> None:
    def measure(seed: int) -> None:
        params = EvaluateParams(rows_per_domain=2, seed=seed)
        run.evaluate_checkpoint(
            tiny_checkpoint,
            model="base",
            store=tiny_store,
            tasks=[],
            params=params,
            folder=tmp_path / "kept",
        )

    measure(0)
    measure(1)
    assert len(loads) == 1
    monkeypatch.setattr(config, "ROW_CHOICE", config.ROW_CHOICE + 1)
    measure(1)
    assert len(loads) == 2


def test_two_tasks_with_one_name_are_refused_before_a_model_is_loaded(
    tiny_checkpoint: CheckpointRef, tiny_store: FolderRef, tmp_path: Path, loads: list[Any]
) -> None:
    path = tmp_path / "courts.jsonl"
    path.write_text(json.dumps({"question": "why", "answer": "a judge"}))
    file = read_task("law", "courts", path)
    for tasks, named in (([file], {"Legal": ("courts",)}), ([], {"law": ("sciq", "sciq")})):
        params = EvaluateParams(harness=HarnessParams(tasks=named))
        with pytest.raises(VersatuneError, match=r"two tasks of law are called '(courts|sciq)'"):
            run.evaluate_checkpoint(
                tiny_checkpoint,
                model="base",
                store=tiny_store,
                tasks=tasks,
                params=params,
                folder=tmp_path / "kept",
            )
    assert not loads


def test_task_files_of_ones_own_count_by_content_and_not_by_place(tmp_path: Path) -> None:
    def fields(folder: Path | None) -> Any:
        return EvaluateParams(
            harness=HarnessParams(tasks={"law": ("courts",)}, include_path=folder)
        ).fingerprint_fields()

    for name in ("one", "moved"):
        (tmp_path / name / "__pycache__").mkdir(parents=True)
        (tmp_path / name / "courts.yaml").write_text("task: courts")
        (tmp_path / name / "__pycache__" / "utils.pyc").write_text(name)
    first, moved = (fields(tmp_path / name) for name in ("one", "moved"))
    assert first == moved != fields(None)
    (tmp_path / "one" / "courts.yaml").write_text("task: judges")
    assert fields(tmp_path / "one") != first


def test_what_decides_nothing_is_no_part_of_the_key(tmp_path: Path) -> None:
    base = EvaluateParams()
    named = HarnessParams(tasks={"law": ("courts",)})
    for changes in (
        {"batch_size": 3},
        {"batch_tokens": 99},
        {"extra_models": {"a": tmp_path}},
        {"seed": 7},
        {"harness": HarnessParams(offline=False, include_path=tmp_path)},
        {"code": CodeParams(max_new_tokens=7)},
    ):
        assert base.model_copy(update=changes).fingerprint_fields() == base.fingerprint_fields(), (
            changes
        )
    found = [base.fingerprint_fields()] + [
        base.model_copy(update=changes).fingerprint_fields()
        for changes in (
            {"limit": 3},
            {"dtype": "bfloat16"},
            {"rows_per_domain": 2},
            {"code": CodeParams(run=True)},
            {"code": CodeParams(run=True, max_new_tokens=7)},
            {"harness": named},
            {"harness": named, "seed": 7},
        )
    ]
    assert all(one not in found[:n] for n, one in enumerate(found))


def test_a_comparison_is_kept_by_what_each_part_of_it_is_kept_by(
    tiny_store: FolderRef, tmp_path: Path
) -> None:
    """What evaluation as a whole depends on holds every setting that a single part does."""
    params = EvaluateParams(
        harness=HarnessParams(tasks={"law": ("courts",)}),
        code=CodeParams(run=True),
    )
    items = {
        "multiple_choice": {"question": "why", "choices": ["a", "b"], "answer": 0},
        "generation": {"question": "why", "answer": "a"},
        "humaneval": {"prompt": "f", "test": "t", "entry_point": "f"},
        "mbpp": {"text": "Write f.", "test_list": ["assert f()"]},
    }
    tasks = []
    for kind, item in items.items():
        (tmp_path / f"{kind}.jsonl").write_text(json.dumps(item))
        tasks.append(read_task("code", kind, tmp_path / f"{kind}.jsonl"))
    fields, own = params.fingerprint_fields(), {"versions", "store", "task", "harness"}
    own |= {"thoughts"}  # of the store
    for part in run.parts_of(tiny_store, tasks, params):
        settings = {k: v for k, v in to_jsonable(part.inputs).items() if k not in own}
        name = "harness" if part.name == "law-courts" else part.name.removeprefix("code-")
        assert settings == {k: fields[name][k] for k in settings}


def test_another_model_does_not_take_the_name_of_one_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="base: reserved model name"):
        EvaluateParams(extra_models={"base": tmp_path})


def test_other_models_under_the_key_of_the_version_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    warn_renamed.cache_clear()
    both = {"extra_models": {}, "others": {"old": tmp_path}}  # the first is of conf/base
    assert EvaluateParams.model_validate(both).extra_models == {"old": tmp_path}
    assert "evaluate.others was renamed to evaluate.extra_models" in caplog.text
