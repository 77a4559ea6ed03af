"""A project that has run undisturbed, copies of it to damage, and what is compared."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from filelock import FileLock

from tests.faults.forks import kedro_run
from tests.helpers.support import copy_project
from versatune.artifacts import file_digest

DATA = Path("data/test")
EXACT = (
    "03_primary/clean/*/*.arrow",
    "05_model_input/tokenized/*/*.arrow",
    "05_model_input/initial_mixture.json",
    "04_feature/*.json",
    "04_feature/probe/*/wave_*",
    "06_models/*/*.safetensors",
    "06_models/*/*.json*",
    "06_models/retrain/*/challenger/*.safetensors",
    "06_models/retrain/*/changes.json",
    "06_models/retrain/*/verdict.json",
    "06_models/retrain/*/outcome.json",
    "07_model_output/evaluation*.parquet",
    "08_reporting/results.csv",
    "08_reporting/ingest_report.json",
)
"""What is the same, byte for byte, however often a run was disturbed."""
TIMED = (
    *("history.json", "manifest.json", "metrics.jsonl", "steps.jsonl", "inputs.json"),
    *("state.json", "digests.json"),
)
"""Files that hold times, how long something took, or checksums of such files."""
TIMINGS = ["seconds", "measurement_seconds", "tokens_per_second", "peak_memory_bytes"]


def results(project: Path) -> dict[str, Any]:
    """Everything a run is for, by file; for tables with timings, what is left without them."""
    data = project / DATA
    files = [f for pattern in EXACT for f in data.glob(pattern) if f.name not in TIMED]
    found: dict[str, Any] = {str(f.relative_to(data)): file_digest(f) for f in files}
    history = pd.read_parquet(data / "07_model_output/mixture_history.parquet")
    found["mixture_history"] = history.drop(columns=TIMINGS).to_json(double_precision=15)
    assert is_whole(data / "08_reporting/report.html")
    return found


def is_whole(page: Path) -> bool:
    """Whether a page was written to its end."""
    return page.read_text("utf-8").rstrip().endswith("</html>")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Path:
    """A project after one whole run; shared by all processes of the tests, so only read it."""
    shared = tmp_path_factory.getbasetemp()
    if shared.name.startswith("popen-"):
        shared = shared.parent
    project = shared / "undisturbed"
    with FileLock(shared / "undisturbed.lock"):
        if not (shared / "undisturbed.done").exists():
            copy_project(project_root, project)
            done = kedro_run(project, "--env", "test")
            assert done.code == 0, done.output[-4000:]
            (shared / "undisturbed.done").touch()
    return project


@pytest.fixture
def fresh(tmp_path: Path, project_root: Path) -> Path:
    """A project in which nothing has run."""
    return copy_project(project_root, tmp_path / "project")


@pytest.fixture
def copy(undisturbed: Path) -> Callable[[Path], Path]:
    """Copies of the undisturbed project, with a store of their own."""

    def make(target: Path) -> Path:
        shutil.copytree(
            undisturbed, target, ignore=shutil.ignore_patterns("mlartifacts"), dirs_exist_ok=True
        )
        with sqlite3.connect(target / "mlflow.db") as store:
            store.execute(
                "UPDATE experiments SET artifact_location = replace(artifact_location, ?, ?)",
                (str(undisturbed), str(target)),
            )
        store.close()
        return target

    return make
