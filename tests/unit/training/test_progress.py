"""Loss, learning rate, gradient norm, speed and memory every `logging_steps`."""

import json
from pathlib import Path
from typing import Any

import pytest

from versatune.artifacts import FolderRef
from versatune.modeling.checkpoints import CheckpointRef
from versatune.training import TrainParams, TrainResult, train
from versatune.training import progress as module
from versatune.training.job import STEPS
from versatune.training.progress import Meter, Progress, bar_text, keep_until
from versatune.training.throughput import Cost, Work

PARAMS = {
    "rounds": 2,
    "steps_per_round": 3,
    "max_length": 64,
    "per_device_train_batch_size": 2,
    "heldout_rows_per_domain": 2,
    "logging_steps": 2,
}


@pytest.fixture(scope="module")
def trained(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainResult, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    folder = tmp_path_factory.mktemp("progress") / "t"
    params = TrainParams.model_validate(PARAMS)
    result = train(tiny_store, tiny_checkpoint, params, folder=folder, on_step=events.append)
    return result, events


def test_every_logging_steps_has_its_numbers(
    trained: tuple[TrainResult, list[dict[str, Any]]],
) -> None:
    result, events = trained
    assert [event["step"] for event in events] == [2, 4, 6]
    for event in events:
        metrics = event["metrics"]
        assert set(metrics) == {
            *("loss", "learning_rate", "grad_norm", "tokens_per_second", "peak_memory_gb")
        }
        assert all(value > 0 for name, value in metrics.items() if name != "learning_rate")
    kept = (result.model_ref.path / STEPS).read_text().splitlines()
    assert [json.loads(line) for line in kept] == events


def test_the_history_says_what_the_steps_of_a_round_were(
    trained: tuple[TrainResult, list[dict[str, Any]]],
) -> None:
    result, events = trained
    rows = result.history.drop_duplicates("round").set_index("round")
    norms = [event["metrics"]["grad_norm"] for event in events]
    assert rows.loc[1, "grad_norm"] == norms[0]
    assert rows.loc[2, "grad_norm"] == pytest.approx((norms[1] + norms[2]) / 2)
    assert rows.loc[2, "learning_rate"] == pytest.approx(0, abs=1e-9)  # cosine, at its end
    assert (rows.loc[1:, "peak_memory_bytes"] > 0).all()


def test_there_is_no_speed_before_the_first_step(
    trained: tuple[TrainResult, list[dict[str, Any]]], caplog: pytest.LogCaptureFixture
) -> None:
    rows = trained[0].history.drop_duplicates("round").set_index("round")["tokens_per_second"]
    assert rows.isna().tolist() == [True, False, False]
    assert "0 tokens/s" not in caplog.text.replace("0 tokens/s", "", 0)


class Clock:
    """Says what time it is."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_speed_leaves_out_measuring_and_saving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, saved, told = Clock(), [0.0], []
    monkeypatch.setattr(module, "time", clock)
    progress = Progress(
        tmp_path,
        2,
        4,
        work=lambda first, last: Work(100.0 * (last - first), 50.0, 0.0),
        saving=lambda: saved[0],
        cost=Cost(weights=6.0, head=0.0, attention=0.0),
        peak=3000.0,
        shown=True,
        on_step=told.append,
    )
    progress.begin(0, 0)
    clock.now += 2  # 2 steps in 2 s
    progress.step(2, 2, {"loss": 1.5, "grad_norm": 2.0, "learning_rate": 1e-3})
    clock.now += 4  # 2 steps in 1 s, and a checkpoint
    saved[0] += 3
    progress.pause(4)
    found = progress.end_round()
    clock.now += 60  # measured
    progress.begin(4, 0)
    clock.now += 2  # 2 steps in 2 s
    progress.step(6, 2, {"loss": 1.0, "grad_norm": 3.0})
    assert [event["metrics"]["tokens_per_second"] for event in told] == [100.0, 400 / 3]
    assert told[0]["metrics"]["mfu"] == pytest.approx(6 * 100 / 3000)
    assert found["grad_norm"] == 2.0
    assert found["mfu"] == pytest.approx(6 * 400 / 3 / 3000)
    assert progress.end_round()["grad_norm"] == 3.0


def test_the_bar_shows_what_is_known() -> None:
    metrics = {
        **{"loss": 1.2345, "learning_rate": 2e-5, "grad_norm": 0.987},
        **{"tokens_per_second": 41234.5, "mfu": 0.412, "peak_memory_gb": 61.23},
    }
    assert bar_text(124, 8, 50, metrics, 240) == (
        "round 3/8 · step 24/50 · loss 1.23 · 41,234 tok/s · 4 min left"
    )
    assert bar_text(124, 8, 50, metrics, 240, width=103) == (
        "round 3/8 · step 24/50 · loss 1.23 · norm 0.99 · 41,234 tok/s · MFU 0.41 · 61.2 GB"
        " · 4 min left"
    )
    assert bar_text(124, 8, 50, metrics, 240, width=200) == (
        "round 3/8 · step 24/50 · loss 1.23 · lr 2.0e-05 · norm 0.99 · 41,234 tok/s · MFU 0.41"
        " · 61.2 GB · 4 min left"
    )
    assert bar_text(50, 8, 50, {"loss": 2.0}, 0.3) == "round 1/8 · step 50/50 · loss 2.00"
    assert bar_text(51, 8, 50, {}, 5400) == "round 2/8 · step 1/50 · 1 h 30 min left"
    assert bar_text(400, 8, 50, {"tokens_per_second": 0.31}, 0) == (
        "round 8/8 · step 50/50 · 0.31 tok/s"
    )


def test_nothing_trained_is_no_speed() -> None:
    assert Meter().tokens_per_second() is None
    assert Meter().mfu(Cost(1.0, 1.0, 1.0), 1.0) is None


def test_a_resumed_training_takes_its_steps_again(tmp_path: Path) -> None:
    path = tmp_path / STEPS
    lines = [json.dumps({"step": step, "metrics": {"loss": 1.0}}) for step in (2, 4, 6)]
    path.write_text("\n".join(lines) + '\n{"step": 8, "met')
    keep_until(path, 4)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [2, 4]
