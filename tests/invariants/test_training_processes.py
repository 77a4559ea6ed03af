"""Two processes train what one does with twice the accumulation; none outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from versatune.artifacts import FolderRef
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import CheckpointRef
from versatune.training import LauncherParams, TrainParams, launch, train
from versatune.training.job import Job

PARAMS = {
    "rounds": 2,
    "steps_per_round": 3,
    "max_length": 64,
    "per_device_train_batch_size": 2,
    "heldout_rows_per_domain": 5,
    "heldout_batch_tokens": 100,
    "learning_rate": 1e-2,
    "logging_steps": 2,
    "strategy": {"name": "foster", "potential_source": "progress", "sigma": 20.0},
}
START = {"law": 0.2, "medicine": 0.3, "code": 0.5}


@pytest.mark.slow
def test_two_processes_equal_one_with_twice_the_accumulation(
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    events: list[dict] = []
    two = train(
        tiny_store,
        tiny_checkpoint,
        TrainParams.model_validate({**PARAMS, "launcher": {"processes": 2}}),
        initial_weights=START,
        folder=tmp_path / "two",
        on_round=events.append,
    )
    one = train(
        tiny_store,
        tiny_checkpoint,
        TrainParams.model_validate({**PARAMS, "gradient_accumulation_steps": 2}),
        initial_weights=START,
        folder=tmp_path / "one",
    )
    # The plan is the same to the row, what is measured to float tolerance.
    for column in ("realised_share_rows", "realised_share_tokens", "epochs_seen"):
        assert two.history[column].equals(one.history[column])
    for column in ("validation_loss", "train_loss", "weight"):
        assert two.history[column].tolist() == pytest.approx(
            one.history[column].tolist(), rel=1e-5, nan_ok=True
        )
    a, b = (load_file(r.model_ref.path / "model.safetensors") for r in (two, one))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5)
    assert [event["round"] for event in events] == [0, 1, 2]
    assert events[1]["metrics"]["loss/law"] > 0
    assert not (tmp_path / "two" / "job.json").exists()


def _job(store: FolderRef, checkpoint: CheckpointRef, folder: Path) -> Job:
    params = TrainParams.model_validate({**PARAMS, "launcher": {"processes": 2}})
    folder.mkdir()
    return Job(store=store, base=checkpoint, params=params, folder=folder)


@pytest.mark.parametrize(
    ("child", "told"),
    [
        ("open(job + '/failure.txt', 'w').write('no room on the disk'); exit(1)", "no room"),
        ("print('it broke here', flush=True); exit(3)", "code 3: it broke here"),
    ],
)
def test_a_failure_in_a_child_is_told_here(
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    child: str,
    told: str,
) -> None:
    job = _job(tiny_store, tiny_checkpoint, tmp_path / "t")
    code = f"job = {str(job.folder)!r}; {child}"
    monkeypatch.setattr(launch, "command", lambda *_: [sys.executable, "-c", code])
    with pytest.raises(VersatuneError, match=told):
        launch.launch(job)


@pytest.mark.slow
def test_no_process_outlives_a_killed_parent(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    code = f"""
from pathlib import Path
from versatune.artifacts import FolderRef
from versatune.modeling.checkpoints import CheckpointRef
from versatune.training import TrainParams, launch, train
train(FolderRef.load({str(tiny_store.path)!r}),
      CheckpointRef.of_folder({str(tiny_checkpoint.path)!r}),
      TrainParams.model_validate({ {**PARAMS, "rounds": 5000, "launcher": {"processes": 2}}!r}),
      initial_weights={START!r}, folder=Path({str(tmp_path / "t")!r}))
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    events = tmp_path / "t" / "metrics.jsonl"
    _until(lambda: events.is_file() and events.stat().st_size > 0, 240)
    family = psutil.Process(parent.pid).children(recursive=True)
    ranks = [p for p in family if "versatune.training" in p.cmdline()]
    assert len(ranks) >= 2
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    _until(lambda: not any(_runs(p) for p in family), 120)


def test_the_launcher_is_chosen_by_the_parameters(tmp_path: Path) -> None:
    params = TrainParams.model_validate({"launcher": {"processes": 3}})
    plain = launch.command(params.launcher, tmp_path / "job.json")
    assert plain[1:5] == ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
    assert plain[5] == "3" and plain[-3:] == [
        "versatune.training",
        str(tmp_path / "job.json"),
        "--watched",
    ]
    params = TrainParams.model_validate({"launcher": {"config_file": "deploy/x.yaml"}})
    own = launch.command(params.launcher, tmp_path / "job.json")
    assert own[2] == "accelerate.commands.launch" and "deploy/x.yaml" in own


@pytest.mark.parametrize(("cores", "threads"), [(64, "32"), (3, "1"), (1, "1"), (None, "1")])
def test_processes_divide_the_cores_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, cores: int | None, threads: str
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert launch._environment(LauncherParams(processes=2))["OMP_NUM_THREADS"] == threads
    own = LauncherParams(config_file=Path("deploy/x.yaml"))
    assert "OMP_NUM_THREADS" not in launch._environment(own)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert launch._environment(LauncherParams(processes=2))["OMP_NUM_THREADS"] == "5"


def _runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def _until(condition, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
