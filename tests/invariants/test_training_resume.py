"""kill -9 at any moment, run again: the same model, weights and history, bit for bit."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers import killed_training
from tests.helpers.killed_training import SCENARIOS
from versatune.artifacts import FolderRef
from versatune.modeling.checkpoints import CheckpointRef
from versatune.training.api import history

TIMINGS = ["seconds", "measurement_seconds", "tokens_per_second", "peak_memory_bytes"]


@pytest.fixture(scope="module")
def trained(
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    out = tmp_path_factory.mktemp("killed")
    done = subprocess.run(
        [
            *(sys.executable, str(Path(killed_training.__file__))),
            *(str(tiny_store.path), str(tiny_checkpoint.path), str(out)),
        ],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def _folder(out: Path, name: str) -> Path:
    return out / name.replace(" ", "_").replace(",", "")


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in SCENARIOS if "undisturbed" not in n])
def test_ends_as_if_undisturbed(trained: Path, name: str) -> None:
    own = f"{name.split(maxsplit=1)[0]} undisturbed"
    plain = _folder(trained, own if own in SCENARIOS else "undisturbed")
    killed = _folder(trained, name)
    FolderRef.load(killed)
    assert (killed / "model.safetensors").read_bytes() == (plain / "model.safetensors").read_bytes()
    pd.testing.assert_frame_equal(
        history(killed).drop(columns=TIMINGS),
        history(plain).drop(columns=TIMINGS),
        check_exact=True,
    )
    lines = (killed / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == history(killed)["round"].nunique()
    assert not (killed / "checkpoints").exists() and not (killed / "staged").exists()


@pytest.mark.slow
def test_the_scenario_is_worth_something(trained: Path) -> None:
    """Weights really change, the seed of dropout really matters, the guard really stops."""
    frame = history(_folder(trained, "undisturbed"))
    law = frame[frame["domain"] == "law"]["weight"]
    assert law.nunique() == 3
    assert (_folder(trained, "lora undisturbed") / "model.safetensors").read_bytes() != (
        _folder(trained, "undisturbed") / "model.safetensors"
    ).read_bytes()
    growing = history(_folder(trained, "growing undisturbed"))
    assert growing["step"].unique().tolist() == [0, 2, 5, 12]
    stopped = history(_folder(trained, "guard undisturbed"))
    assert "training ends after round 4" in stopped["reason"].iloc[-1]
