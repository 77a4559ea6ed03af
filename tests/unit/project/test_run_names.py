"""Names and addresses of runs in MLflow."""

import datetime
from typing import Any

import pytest

from versatune.project.run_names import run_name, run_page

NOW = datetime.datetime(2026, 5, 4, 16, 5)


def used(model: str | None) -> dict[str, Any]:
    return {
        "train": {"strategy": {"name": "foster"}, "rounds": 8, "steps_per_round": 50},
        "base_model": {"name_or_path": model},
    }


@pytest.mark.parametrize(
    ("run_params", "model", "name"),
    [
        ({"pipeline_names": None}, "/models/SmolLM2", "foster · 8 x 50 · SmolLM2 · 16:05"),
        ({"pipeline_names": ["__default__"]}, None, "foster · 8 x 50 · sample model · 16:05"),
        (
            {
                "pipeline_names": ["train"],
                "env": "test",
                "runtime_params": {"train": {"rounds": 8, "seed": 3}, "judge": {"api_key": "s3"}},
            },
            "HuggingFaceTB/SmolLM2-135M",
            "train · foster · 8 x 50 · SmolLM2-135M · seed=3 api_key=•••••• · test · 16:05",
        ),
    ],
    ids=["all", "sample", "given"],
)
def test_a_run_that_trains_is_named_by_what_differs(
    run_params: dict[str, Any], model: str | None, name: str
) -> None:
    assert run_name(run_params, used(model), NOW) == name


def test_a_run_that_does_not_train_is_named_by_its_pipelines() -> None:
    given = {"pipeline_names": ["ingest", "probe"], "runtime_params": {"seed": 1}, "env": "local"}
    assert run_name(given, None, NOW) == "ingest+probe · seed=1 · 16:05"


def test_a_runs_page_opens_as_training_and_keeps_passwords_to_itself() -> None:
    end = "#/experiments/1/runs/abc?workflowType=machine_learning"
    local = run_page("sqlite:///mlflow.db", "1", "abc", "127.0.0.1", "5000")
    assert local == f"http://127.0.0.1:5000/{end}"
    served = run_page("https://me:canary@host:80/", "1", "abc", "127.0.0.1", "5000")
    assert served.startswith("https://") and served.endswith(f"host:80/{end}")
    assert "canary" not in served
