"""MLflow behind a server, locked, and gone during a run: nothing stops, nothing is lost."""

from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run

from tests.faults.conftest import DATA
from tests.faults.forks import Done, Fault, kedro_run
from tests.helpers.tracking_server import TrackingServer

pytestmark = pytest.mark.slow

Copy = Callable[[Path], Path]
AGAIN = ("--pipeline", "train", "--params", "train.seed=5,train.resume=restart")
SPOOL = DATA / "08_reporting" / "mlflow_spool.jsonl"


def runs(uri: str, pipeline: str) -> list[Run]:
    """The runs of one pipeline, the newest first."""
    mlflow.set_tracking_uri(uri)
    return mlflow.search_runs(
        experiment_names=["versatune"],
        filter_string=f"tags.`versatune.pipeline` = '{pipeline}'",
        order_by=["start_time DESC"],
        output_format="list",
    )


def check_whole(run: Run) -> None:
    """A training of which nothing is missing."""
    assert run.info.status == "FINISHED"
    assert run.data.params["train.seed"] == "5" and run.data.tags["strategy"]
    steps = mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss/law")
    assert [m.step for m in steps] == [0, 3, 6]


def check_kept(done: Done) -> None:
    assert done.code == 0, done.output[-3000:]
    assert "Traceback" not in done.output
    assert done.output.count("MLflow does not answer") == 1


def test_a_run_goes_on_while_its_store_is_locked(copy: Copy, tmp_path: Path) -> None:
    """Another process holds the database until a record had to be kept."""
    project = copy(tmp_path / "project")
    fault = Fault(r"trained/.*metrics\.jsonl", "lock", ballast=project / SPOOL)
    done = kedro_run(project, "--env", "test", *AGAIN, fault=fault)
    check_kept(done)
    assert "kept records were sent" in done.output
    assert not (project / SPOOL).exists()
    (run,) = runs(f"sqlite:///{project}/mlflow.db", "train")
    check_whole(run)


def test_a_tracking_server_and_its_end_in_the_middle_of_a_run(
    copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address is all that is set; artifacts and models go through the server."""
    project, server = copy(tmp_path / "project"), TrackingServer(tmp_path / "server")
    uri = server.uri
    (project / "conf/test/mlflow.yml").write_text(f"server: {{mlflow_tracking_uri: '{uri}'}}\n")
    (project / "mlflow.db").unlink()
    with server:
        done = kedro_run(project, "--env", "test")
        assert done.code == 0 and "does not answer" not in done.output, done.output[-3000:]
        (whole,) = runs(uri, "all")
        assert whole.info.status == "FINISHED" and "tuned/nats_per_token/law" in (
            whole.data.metrics
        )
        assert whole.info.artifact_uri.startswith("mlflow-artifacts:")
        client = mlflow.MlflowClient()
        report = client.download_artifacts(whole.info.run_id, "report.html", str(tmp_path))
        assert "</html>" in Path(report).read_text("utf-8")
        monkeypatch.chdir(tmp_path)
        assert mlflow.transformers.load_model(whole.data.tags["model.uri"]).model.config
        assert not (project / "mlartifacts").exists() and not (project / "mlflow.db").exists()

        fault = Fault(r"trained/.*metrics\.jsonl", "end", group=server.group)
        check_kept(kedro_run(project, "--env", "test", *AGAIN, fault=fault))
        assert server.was_killed()
    with server:
        later = kedro_run(project, "--env", "test", "--pipeline", "mixture")
        assert later.code == 0 and "kept records were sent" in later.output, later.output[-3000:]
        (run,) = runs(uri, "train")
        check_whole(run)
