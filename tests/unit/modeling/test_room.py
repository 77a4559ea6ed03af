"""Weights that a device can't hold are refused before they are loaded."""

import re
from pathlib import Path

import pytest
import torch

from versatune.artifacts import FolderRef
from versatune.errors import VersatuneError
from versatune.evaluation import measure
from versatune.evaluation.config import EvaluateParams
from versatune.modeling import room
from versatune.modeling.checkpoints import CheckpointRef, load_model
from versatune.samplers.base import draw_batch
from versatune.samplers.config import SamplingParams
from versatune.samplers.local import ModelSampler


@pytest.fixture
def small(tiny_checkpoint: CheckpointRef, monkeypatch: pytest.MonkeyPatch) -> int:
    """A device that holds the tiny model in bfloat16 and not in float32; bytes in float32."""
    whole = room.weight_bytes(tiny_checkpoint.path, "float32")
    monkeypatch.setattr(room, "device_bytes", lambda: int(0.7 * whole))
    return whole


def test_weights_are_counted_from_the_headers(tiny_checkpoint: CheckpointRef) -> None:
    model = load_model(tiny_checkpoint, dtype="float32")
    own = {p.data_ptr(): p.numel() for p in model.parameters()}
    assert room.weight_bytes(tiny_checkpoint.path, "float32") == 4 * sum(own.values())
    assert room.weight_bytes(tiny_checkpoint.path, "bfloat16") == 2 * sum(own.values())
    saved = load_model(tiny_checkpoint).dtype
    assert room.weight_bytes(tiny_checkpoint.path, "auto") == saved.itemsize * sum(own.values())


def test_evaluation_says_what_would_fit(
    tiny_checkpoint: CheckpointRef, tiny_store: FolderRef, tmp_path: Path, small: int
) -> None:
    def run(dtype: str) -> None:
        measure.evaluate_checkpoint(
            tiny_checkpoint,
            model="base",
            store=tiny_store,
            tasks=[],
            params=EvaluateParams.model_validate({"dtype": dtype, "rows_per_domain": 1}),
            folder=tmp_path,
        )

    with pytest.raises(VersatuneError, match=r"evaluate\.dtype: bfloat16 \(0\.0 GB\)") as raised:
        run("float32")
    assert re.search(r"evaluate\.dtype is float32, .* take 0\.0 GB", str(raised.value))
    run("bfloat16")
    assert small > 0


def test_the_layers_may_lie_on_several_gpus(
    tiny_checkpoint: CheckpointRef, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert small > 0
    room.check_room(tiny_checkpoint.path, dtype="float32", key="evaluate", devices=2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(VersatuneError, match=r"evaluate\.parallelize: true"):
        room.check_room(tiny_checkpoint.path, dtype="float32", key="evaluate")
    with pytest.raises(VersatuneError, match="no change of parameters"):
        room.check_room(*[tiny_checkpoint.path] * 9, dtype="float32", key="evaluate")


def test_the_probe_says_what_would_fit(tiny_checkpoint: CheckpointRef, small: int) -> None:
    assert small > 0
    sampler = ModelSampler(tiny_checkpoint, SamplingParams(dtype="float32"))
    with pytest.raises(VersatuneError, match=r"probe\.sampling\.dtype: bfloat16"):
        draw_batch(sampler, 0, 1, 0)
