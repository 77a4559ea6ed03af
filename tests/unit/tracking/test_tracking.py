"""Tracking against a real sqlite store: what arrives, and what is kept while it is away."""

import json
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import plotly.graph_objects as go
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException

from tests.helpers.tracked import tracked
from versatune import tracking
from versatune.artifacts import with_checksum
from versatune.modeling.checkpoints import CheckpointRef
from versatune.tracking import registry
from versatune.tracking import spool as spool_module
from versatune.tracking.run_log import ChildRun
from versatune.tracking.spool import Spool
from versatune.work.log import encoded


@pytest.fixture
def run_id(store: None) -> Iterator[str]:  # noqa: ARG001
    yield mlflow.start_run().info.run_id
    while mlflow.active_run():
        mlflow.end_run()


def test_without_a_run_nothing_happens(tmp_path: Path) -> None:
    tracking.log_metrics({"x": 1.0})
    tracking.log_artifact(tmp_path / "absent")
    with ChildRun("child").active():
        tracking.set_tags({"a": "b"})


def test_values_arrive_flattened_and_by_step(run_id: str, tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("text")
    with tracked(run_id, Spool(tmp_path / "spool.jsonl")):
        tracking.log_params({"train": {"strategy": {"name": "foster"}, "rounds": 3}})
        tracking.log_metrics({"loss/law": 2.0, "gone": float("nan")}, step=1)
        tracking.log_metrics({"loss/law": 1.5}, step=2)
        tracking.log_artifact(tmp_path / "file.txt", "folder")
        tracking.log_figure(go.Figure(), "figures/shares", lambda _: b"a picture")
    data = mlflow.get_run(run_id).data
    assert data.params == {"train.strategy.name": "foster", "train.rounds": "3"}
    assert set(data.metrics) == {"loss/law"}
    history = mlflow.MlflowClient().get_metric_history(run_id, "loss/law")
    assert [(m.step, m.value) for m in history] == [(1, 2.0), (2, 1.5)]
    assert [f.path for f in mlflow.MlflowClient().list_artifacts(run_id, "folder")]
    drawn = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="figures")
    assert {f.name for f in Path(drawn).iterdir()} == {"shares.json", "shares.png"}
    assert (Path(drawn) / "shares.png").read_bytes() == b"a picture"
    assert not (tmp_path / "spool.jsonl").exists()


def test_secrets_in_parameters_are_masked(run_id: str, tmp_path: Path) -> None:
    with tracked(run_id, Spool(tmp_path / "spool.jsonl")):
        tracking.log_params({"server": {"url": "http://me:canary@host/v1", "api_key": "canary"}})
    params = mlflow.get_run(run_id).data.params
    assert set(params) == {"server.url", "server.api_key"}
    assert "canary" not in str(params) and "host/v1" in params["server.url"]


def test_a_password_in_the_servers_address_is_not_told(
    run_id: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tiny_checkpoint: CheckpointRef,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri, spool = mlflow.get_tracking_uri(), Spool(tmp_path / "spool.jsonl")
    with tracked(run_id, spool), caplog.at_level(logging.INFO):
        mlflow.set_tracking_uri("http://me:canary@127.0.0.1:9")
        tracking.log_metrics({"loss": 3.0}, step=1)
        assert tracking.log_model(tiny_checkpoint.path, "f", "the court") is None
        with pytest.raises(registry.RegistryOfflineError) as away:
            registry.champion("any")
        told = caplog.text + str(away.value) + spool.path.read_text()
        mlflow.set_tracking_uri(uri)
    assert "does not answer" in told and "did not take the model" in told
    assert "127.0.0.1" in told and "canary" not in told


def test_a_store_that_is_away_is_not_asked_all_the_time(
    run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(spool_module, "PATIENCE", 1e9)
    uri, spool = mlflow.get_tracking_uri(), Spool(tmp_path / "spool.jsonl")
    with tracked(run_id, spool):
        mlflow.set_tracking_uri("http://127.0.0.1:9")
        tracking.log_metrics({"loss": 3.0}, step=1)
        mlflow.set_tracking_uri(uri)
        tracking.log_metrics({"loss": 2.0}, step=2)
        assert len(spool.path.read_text().splitlines()) == 2  # too soon to ask again
    assert not spool.path.exists()  # asked at the end in any case
    assert mlflow.get_run(run_id).data.metrics == {"loss": 2.0}


@pytest.mark.usefixtures("run_id")
def test_records_of_a_run_made_meanwhile_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made by one process, its records go on waiting: a later process knows it by its own id."""
    spool = Spool(tmp_path / "spool.jsonl")
    (tmp_path / "file").write_text("x")
    metric = {"kind": "metrics", "time": 1, "step": 0, "values": {"a": 1.0}}
    for record in (
        {"kind": "create", "run_id": "local-9", "name": "late"},
        {"kind": "artifact", "run_id": "local-9", "path": str(tmp_path / "file"), "folder": None},
        {"kind": "artifact", "run_id": "local-9", "path": str(tmp_path / "gone"), "folder": None},
        {**metric, "run_id": "local-9"},
    ):
        spool.keep(record, ConnectionError("down"))
    (tmp_path / "artifacts").write_text("in the way of every artifact")
    assert spool.send() == 1
    monkeypatch.setattr(spool_module, "_created", {})
    (tmp_path / "artifacts").unlink()
    assert Spool(spool.path).send() == 2
    assert str(tmp_path / "gone") in spool.aside.read_text()
    runs = mlflow.search_runs(filter_string="tags.`mlflow.runName` = 'late'", output_format="list")
    assert [r.data.metrics for r in runs] == [{"a": 1.0}]
    files = mlflow.MlflowClient().list_artifacts(runs[0].info.run_id)
    assert [f.path for f in files] == ["file"]


SOUND = {"kind": "metrics", "run_id": "R", "time": 1, "step": 0, "values": {"a": 1.0}}
UNFIT: list[Any] = [
    *(3, None, [], "text", {}),
    *({key: value for key, value in SOUND.items() if key != gone} for gone in SOUND),
    SOUND | {"kind": "metric"},
    SOUND | {"values": {"a": {"b": 1}}},
    SOUND | {"values": [1]},
    SOUND | {"run_id": 3},
    SOUND | {"more": 1},
    {"kind": "status", "run_id": "R", "time": 1, "status": "DONE"},
    {"kind": "artifact", "run_id": "R", "time": 1, "path": None, "folder": None},
]


def test_a_line_that_is_no_record_is_put_aside_and_blocks_nothing(
    run_id: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Valid JSON, all of it, and nothing that MLflow could be told."""
    spool = Spool(tmp_path / "spool.jsonl")
    lines = [json.dumps(entry).replace('"R"', f'"{run_id}"') for entry in UNFIT]
    last = encoded(SOUND | {"run_id": run_id, "values": {"a": 2.0, "most": math.inf}})
    spool.path.write_text("\n".join([*lines, last]) + "\n")
    assert spool.send() == 1
    assert mlflow.get_run(run_id).data.metrics["a"] == 2.0
    assert not spool.path.exists()
    assert spool.aside.read_text().splitlines() == lines
    assert caplog.text.count("is put aside in") == len(lines) and str(spool.aside) in caplog.text


@given(st.binary(max_size=200).filter(lambda line: b"\n" not in line and b"\r" not in line))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_line_holds_those_after_it_are_sent(
    run_id: str, tmp_path: Path, line: bytes
) -> None:
    spool = Spool(tmp_path / "spool.jsonl")
    sound = encoded(SOUND | {"run_id": run_id})
    spool.path.write_bytes(line + b"\n" + sound.encode() + b"\n")
    assert spool.send() == 1
    assert not spool.path.exists()


def test_a_spool_that_cannot_be_written_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    Spool(tmp_path / "file" / "spool").keep({"kind": "tags"}, ConnectionError("down"))
    assert "is lost" in caplog.text


def test_records_wait_while_the_store_is_away_and_are_sent_in_order(
    run_id: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = mlflow.get_tracking_uri()
    spool = Spool(tmp_path / "spool.jsonl")
    with tracked(run_id, spool), caplog.at_level(logging.WARNING):
        mlflow.set_tracking_uri("http://127.0.0.1:9")
        tracking.log_metrics({"loss": 3.0}, step=1)
        tracking.log_metrics({"loss": 2.0}, step=2)
        assert len(spool.path.read_text().splitlines()) == 2
        assert caplog.text.count("does not answer") == 1
        mlflow.set_tracking_uri(uri)
        tracking.log_metrics({"loss": 1.0}, step=3)
    history = mlflow.MlflowClient().get_metric_history(run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert not spool.path.exists()


@pytest.mark.usefixtures("run_id")
def test_a_run_that_began_without_mlflow_is_made_afterwards(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.jsonl")
    spool.keep({"kind": "create", "run_id": "local-1", "name": "late"}, ConnectionError("down"))
    spool.keep(
        {"kind": "metrics", "run_id": "local-1", "time": 1, "step": 0, "values": {"a": 1.0}},
        ConnectionError("down"),
    )
    with spool.path.open("a") as handle:
        handle.write('{"kind": "metr')  # cut off by a crash
    assert spool.send() == 2
    assert not spool.path.exists()
    assert spool.aside.read_text() == '{"kind": "metr\n'
    runs = mlflow.search_runs(filter_string="tags.`mlflow.runName` = 'late'", output_format="list")
    assert [r.data.metrics for r in runs] == [{"a": 1.0}]


def test_child_runs_end_as_they_are_closed(run_id: str, tmp_path: Path) -> None:
    with tracked(run_id, Spool(tmp_path / "spool.jsonl")):
        good, bad = ChildRun("good", {"seed": 1}), ChildRun("bad")
        with good.active():
            tracking.log_metrics({"m": 1.0})
        bad.close("FAILED")
        good.close("FINISHED")
    runs = {r.info.run_name: r for r in mlflow.search_runs(output_format="list")}
    assert runs["good"].info.status == "FINISHED" and runs["bad"].info.status == "FAILED"
    assert runs["good"].data.tags["mlflow.parentRunId"] == run_id
    assert runs["good"].data.params == {"seed": "1"}
    assert runs["good"].data.metrics == {"m": 1.0} and not runs["bad"].data.metrics


@pytest.mark.usefixtures("run_id")
def test_a_child_of_a_run_that_waits_to_be_made_is_made_after_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.jsonl")
    spool.keep({"kind": "create", "run_id": "local-7", "name": "late"}, ConnectionError("down"))
    with tracked("local-7", spool):
        ChildRun("child", {"seed": 1}).close("FINISHED")
        assert str(tracking.why_offline()) == "no connection"
    runs = {r.info.run_name: r for r in mlflow.search_runs(output_format="list")}
    assert runs["child"].data.tags["mlflow.parentRunId"] == runs["late"].info.run_id
    assert runs["child"].data.params == {"seed": "1"}
    assert runs["child"].info.status == "FINISHED"


@pytest.mark.usefixtures("run_id")
def test_a_spool_that_cannot_be_rewritten_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    spool = Spool(tmp_path / "spool.jsonl")
    spool.keep({"kind": "create", "run_id": "local-8", "name": "late"}, ConnectionError("down"))
    folder = {"kind": "artifact", "run_id": "local-8", "path": str(tmp_path), "folder": None}
    spool.keep(folder, ConnectionError("down"))
    monkeypatch.setattr("versatune.work.log.write_atomic", full)
    assert spool.send() == 1
    assert "will be sent again" in caplog.text


def test_a_model_is_stored_once_and_can_be_loaded(
    run_id: str,
    tmp_path: Path,
    tiny_checkpoint: CheckpointRef,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is generated to store it, which takes minutes of a large model."""
    from transformers.generation import utils

    asked: list[Any] = []
    monkeypatch.setattr(utils.GenerationMixin, "generate", lambda *_, **how: asked.append(how))
    with tracked(run_id, Spool(tmp_path / "spool.jsonl")):
        name = "SmolLM2 1.7B/v2-foster"
        first = tracking.log_model(tiny_checkpoint.path, "f1", "the court", name)
        again = tracking.log_model(tiny_checkpoint.path, "f1", "the court")
    assert first is not None and first == again
    assert not asked
    assert mlflow.get_logged_model(first.rpartition("/")[2]).name == "SmolLM2-1-7B-v2-foster"
    loaded = mlflow.transformers.load_model(first)
    assert loaded.model.config.hidden_size == 32
    assert mlflow.get_run(run_id).data.tags["model.fingerprint"] == "f1"


def test_spool_is_plain_json_lines(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.jsonl")
    call = {"kind": "tags", "time": 1, "values": {"path": Path("x")}}
    spool.keep(call, MlflowException("no"))
    record = {**call, "values": {"path": "x"}}
    assert json.loads(spool.path.read_text()) == with_checksum(record)


def test_records_end_at_line_feeds_alone(run_id: str, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.jsonl")
    record = {"kind": "tags", "run_id": run_id, "time": 1, "values": {"said": "a\u2028b\x85c"}}
    spool.path.write_text(
        json.dumps(with_checksum(record), ensure_ascii=False) + "\n", encoding="utf-8"
    )
    assert spool.send() == 1
    assert mlflow.get_run(run_id).data.tags["said"] == "a\u2028b\x85c"
