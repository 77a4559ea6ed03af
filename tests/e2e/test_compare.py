"""``kedro run --pipeline compare`` by the command line: killed, gone on with, and in MLflow."""

import math
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import mlflow
import pandas as pd
import plotly.io
import pytest
from mlflow.entities import Run

from tests.faults.forks import Done
from tests.helpers.support import command, environment
from versatune.evaluation.comparison import summarise
from versatune.pipelines.report.pipeline import FIGURES

pytestmark = pytest.mark.slow

REPORTING = Path("data/test/08_reporting")
DOMAINS = ("law", "medicine", "finance", "science", "code", "other")


def found(project: Path, query: str) -> list[Run]:
    """Runs in the project's store, the latest first."""
    mlflow.set_tracking_uri(f"sqlite:///{project}/mlflow.db")
    return mlflow.search_runs(
        experiment_names=["versatune"],
        filter_string=query,
        order_by=["start_time DESC"],
        output_format="list",
    )


@pytest.fixture(scope="module")
def compared(finished: Path, forked: Callable[..., Done]) -> Path:
    """The project after a comparison that was killed in its second training and run again."""
    with subprocess.Popen(
        command("--env", "test", "--pipeline", "compare"),
        cwd=finished,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as child:
        began: set[Path] = set()
        while len(began) < 2 and child.poll() is None:
            began |= set((finished / "data/test/06_models/compare").rglob("model"))
            time.sleep(0.02)
        child.kill()
    done = forked("--pipeline", "compare")
    assert done.code == 0, done.output[-3000:]
    assert "foster, mean held-out loss:" in done.output
    return finished


def test_a_child_run_for_each_strategy_and_seed(compared: Path) -> None:
    parent = found(compared, "attributes.run_name LIKE 'compare%'")[0]
    assert parent.info.status == "FINISHED"
    children = {
        run.info.run_name: run
        for run in found(compared, f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    }
    assert children.keys() == {
        f"{strategy} seed {seed}"
        for strategy in ("uniform", "foster", "proportional")
        for seed in (0, 1)
    }
    reused = [name for name, run in children.items() if "versatune.reused" in run.data.tags]
    assert len(reused) == 1, "what was done before the kill is not done again"
    table = pd.read_parquet(compared / REPORTING / "comparison.parquet")
    losses = table[table["metric"] == "nats_per_token"].set_index(["strategy", "seed", "domain"])
    for name, run in children.items():
        strategy, _, seed = name.split()
        assert run.info.status == "FINISHED"
        assert run.data.params["strategy.name"] == strategy
        assert (run.data.params["seed"], run.data.params["train.rounds"]) == (seed, "2")
        for domain in DOMAINS:
            value = losses.loc[(strategy, int(seed), domain), "value"]
            assert run.data.metrics[f"final/nats_per_token/{domain}"] == value
            assert f"loss/{domain}" in run.data.metrics or name in reused
    assert "relative_gain/nats_per_token/foster" in parent.data.metrics


def test_the_tables_and_the_page_are_there_and_agree(compared: Path) -> None:
    table = pd.read_parquet(compared / REPORTING / "comparison.parquet")
    assert table[["value", "stderr", "low", "high", "n", "task_version"]].notna().all(axis=None)
    written = pd.read_parquet(compared / REPORTING / "comparison_summary.parquet")
    made = summarise(table, "uniform").replace({"verdict": {math.nan: None}})
    pd.testing.assert_frame_equal(written, made, check_dtype=False)
    parent = found(compared, "attributes.run_name LIKE 'compare%'")[0]
    client = mlflow.MlflowClient()
    names = {f.path for f in client.list_artifacts(parent.info.run_id)}
    assert "comparison.html" in names
    drawn = {f.path for f in client.list_artifacts(parent.info.run_id, "figures")}
    assert drawn == {
        f"figures/comparison_{name}.{kind}"
        for name in ("loss", "accuracy", "shares")
        for kind in ("json", "png")
    }


def test_the_figures_of_the_report_are_artifacts_and_the_same(
    finished: Path, tmp_path: Path
) -> None:
    first = found(finished, "")[-1]
    for name in FIGURES:
        artifact = mlflow.artifacts.download_artifacts(
            run_id=first.info.run_id, artifact_path=f"figures/{name}.json", dst_path=str(tmp_path)
        )
        logged = plotly.io.read_json(artifact)
        assert logged == plotly.io.read_json(finished / REPORTING / "figures" / f"{name}.json")
