"""The shipped accelerate configurations train what one process does, killed on the way or not."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.helpers.scaled_training import DIE_AT, LORA, PARAMS, START
from versatune.artifacts import FolderRef
from versatune.data.store import TokenizedSplit
from versatune.modeling.checkpoints import CheckpointRef, load_model
from versatune.modeling.heldout import heldout_losses
from versatune.training import TrainParams, TrainResult, train
from versatune.training.api import history

ROOT = Path(__file__).parents[2]
KILLED_AFTER = 3
"""Steps: the first round and its checkpoint are done, the weights have changed."""
DEADLINE = 120


@pytest.fixture(scope="module")
def alone(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path_factory: pytest.TempPathFactory
) -> TrainResult:
    """One process that takes two batches before each step."""
    return train(
        tiny_store,
        tiny_checkpoint,
        TrainParams.model_validate({**PARAMS, "gradient_accumulation_steps": 2}),
        initial_weights=START,
        folder=tmp_path_factory.mktemp("alone") / "t",
    )


def on_cpus(name: str, path: Path) -> Path:
    """The shipped configuration for two processes on CPUs, all else as it is."""
    shipped: dict[str, Any] = yaml.safe_load((ROOT / "deploy/accelerate" / name).read_text())
    changed = {"use_cpu": True, "num_processes": 2}
    if shipped["num_machines"] > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            changed["main_process_port"] = free.getsockname()[1]
    assert changed.keys() <= {*shipped, "main_process_port"}
    path.write_text(yaml.safe_dump(shipped | changed))
    return path


def machines(
    store: FolderRef, base: CheckpointRef, folder: Path, config: Path, params: str = "PARAMS"
) -> list[list[str]]:
    """What is started on each machine; ``params``: the name of those in scaled_training."""
    places = [str(p) for p in (store.path, base.path, folder, config)]
    code = (
        "from pathlib import Path; from tests.helpers import scaled_training as s; "
        f"s.start(*map(Path, {places}), s.{params})"
    )
    commands = [[sys.executable, "-c", code]]
    if yaml.safe_load(config.read_text())["num_machines"] > 1:
        commands.append(
            [
                *(sys.executable, "-m", "accelerate.commands.launch"),
                *("--config_file", str(config), "--machine_rank", "1"),
                *("-m", "versatune.training", str(folder / "job.json")),
            ]
        )
    return commands


def run(commands: list[list[str]], folder: Path, **environment: str) -> list[int]:
    """Start them all, the second when the first has written the job; their exit codes."""
    given = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
    started: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            started.append(
                subprocess.Popen(command, env=given, stdin=subprocess.DEVNULL, cwd=folder.parent)
            )
            _until(lambda: (folder / "job.json").is_file() or started[0].poll() is not None)
        return [process.wait(DEADLINE) for process in started]
    finally:
        for process in started:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fsdp.yaml", "ddp_nodes.yaml"])
def test_killed_and_gone_on_with_it_trains_what_one_process_does(
    name: str,
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    alone: TrainResult,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "t"
    config = on_cpus(name, tmp_path / name)
    commands = machines(tiny_store, tiny_checkpoint, folder, config)
    assert all(run(commands, folder, **{DIE_AT: str(KILLED_AFTER)}))
    kept = folder / "checkpoints" / "checkpoint-2"
    # Whole weights and moments under accelerate's names for FSDP: tensors were really divided.
    assert (kept / "pytorch_model_fsdp.bin").is_file() == (name == "fsdp.yaml")
    assert (kept / "round.json").is_file() and not (folder / "history.json").exists()

    on_cpus(name, config)
    assert run(commands, folder) == [0] * len(commands)
    assert not (folder / "checkpoints").exists()

    found = history(folder)
    assert found["round"].max() == 3 and "back to round 2" in found["reason"].iloc[-1]
    for column in ("realised_share_rows", "realised_share_tokens", "epochs_seen"):
        assert found[column].equals(alone.history[column])
    for column in ("validation_loss", "train_loss", "weight"):
        assert found[column].tolist() == pytest.approx(
            alone.history[column].tolist(), rel=1e-5, nan_ok=True
        )
    a, b = (load_file(p / "model.safetensors") for p in (folder, alone.model_ref.path))
    assert a.keys() == b.keys()
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-4, atol=1e-5)
    # The model that is saved is the one that was measured in the round it went back to.
    measured = heldout_losses(
        load_model(folder),
        TokenizedSplit.load(tiny_store, "steering"),
        rows_per_domain=PARAMS["heldout_rows_per_domain"],
        batch_tokens=100,
    )
    best = found[found["round"] == 2]["validation_loss"].tolist()
    assert [h.nats_per_token for h in measured.values()] == pytest.approx(best, rel=1e-5)


@pytest.mark.slow
def test_adapters_are_divided_too(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    """FSDP2 over a base that stays as it is and adapters that train; merged when saved."""
    one = train(
        tiny_store,
        tiny_checkpoint,
        TrainParams.model_validate({**LORA, "gradient_accumulation_steps": 2}),
        initial_weights=START,
        folder=tmp_path / "alone",
    )
    folder, config = tmp_path / "t", on_cpus("fsdp.yaml", tmp_path / "fsdp.yaml")
    assert run(machines(tiny_store, tiny_checkpoint, folder, config, "LORA"), folder) == [0]
    found = history(folder)
    for column in ("validation_loss", "train_loss", "weight"):
        assert found[column].tolist() == pytest.approx(
            one.history[column].tolist(), rel=1e-4, nan_ok=True
        )
    a, b = (load_file(p / "model.safetensors") for p in (folder, one.model_ref.path))
    before = load_file(tiny_checkpoint.path / "model.safetensors")
    assert a.keys() == b.keys()
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-3, atol=1e-4)
    assert any(not torch.equal(a[key], before[key]) for key in a.keys() & before.keys())


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
