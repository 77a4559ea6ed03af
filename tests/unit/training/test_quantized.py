"""QLoRA and lean optimisers: trained on a CPU, saved in full precision, resumed exactly."""

import importlib.util
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from versatune.artifacts import FolderRef
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import CheckpointRef, load_model
from versatune.training import TrainParams, TrainResult, train
from versatune.training.base_losses import base_losses
from versatune.training.job import Job
from versatune.training.reference_config import ReferenceParams
from versatune.training.run import prepared_model
from versatune.work import make_folder

PARAMS: dict[str, Any] = {
    "rounds": 2,
    "steps_per_round": 3,
    "max_length": 64,
    "per_device_train_batch_size": 2,
    "heldout_rows_per_domain": 4,
    "learning_rate": 1e-2,
    "lora": {"r": 4},
    "quantization": "nf4",
}


@pytest.fixture
def run(tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path) -> Any:
    def start(name: str, **changes: Any) -> TrainResult:
        given = TrainParams.model_validate({**PARAMS, **changes})
        return train(tiny_store, tiny_checkpoint, given, folder=tmp_path / name)

    return start


def test_the_base_is_held_in_4_bits_and_adapters_alone_are_trained(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    given = TrainParams.model_validate(PARAMS)
    model = prepared_model(
        Job(store=tiny_store, base=tiny_checkpoint, params=given, folder=tmp_path)
    )
    linear = {n: p for n, p in model.named_parameters() if "q_proj.base_layer" in n}
    assert linear
    assert all(p.dtype == torch.uint8 and not p.requires_grad for p in linear.values())
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)


def test_qlora_learns_and_is_saved_in_full_precision(
    run: Any, tiny_checkpoint: CheckpointRef, tiny_store: FolderRef, tmp_path: Path
) -> None:
    result = run("q")
    loss = result.history.groupby("round")["validation_loss"].mean()
    assert loss[2] < loss[0]
    given, none = TrainParams.model_validate(PARAMS), ReferenceParams(mode="none")
    measured = make_folder(
        base_losses(tiny_store, tiny_checkpoint, given, none), tmp_path / "losses"
    )
    first = result.history.query("round == 0").set_index("domain")["validation_loss"]
    for domain, nats in measured.metadata["losses"].items():
        assert nats == pytest.approx(first[domain], rel=2e-2), (
            "the base in 4 bits, as it is trained"
        )
    saved, base = load_model(result.model_ref.path), load_model(tiny_checkpoint)
    assert not hasattr(saved.config, "quantization_config")
    kinds = {name: p.dtype for name, p in saved.named_parameters()}
    assert kinds == {name: p.dtype for name, p in base.named_parameters()}


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "paged_adamw_8bit"])
def test_a_killed_qlora_training_ends_with_the_same_adapters(
    run: Any, optim: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run("whole", optim=optim)
    from versatune.training.callback import RoundCallback

    real = RoundCallback.on_epoch_begin

    def die(self: Any, args: Any, state: Any, control: Any, **others: Any) -> None:
        if state.global_step:
            raise KeyboardInterrupt
        real(self, args, state, control, **others)

    with monkeypatch.context() as patched:
        patched.setattr(RoundCallback, "on_epoch_begin", die)
        with pytest.raises(KeyboardInterrupt):
            run("cut", optim=optim)
    resumed = run("cut", optim=optim)
    measured = ("second", "peak_memory")  # of the machine
    timeless = [c for c in whole.history.columns if not any(part in c for part in measured)]
    pd.testing.assert_frame_equal(whole.history[timeless], resumed.history[timeless])
    for name in ("adapter/adapter_model.safetensors", "model.safetensors"):
        ours = (resumed.model_ref.path / name).read_bytes()
        assert ours == (whole.model_ref.path / name).read_bytes()


@pytest.mark.parametrize("optim", ["adafactor", "adamw_torch", "adamw_bnb_8bit", "lion_8bit"])
def test_other_optimizers_train(run: Any, optim: str) -> None:
    loss = run(optim, optim=optim, lora=None, quantization=None).history.groupby("round")[
        "validation_loss"
    ]
    assert loss.mean()[2] < loss.mean()[0]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, "train.quantization: nf4"),
        ({"quantization": None, "optim": "adamw_8bit"}, "train.optim: adamw_8bit"),
    ],
)
def test_without_bitsandbytes_it_is_asked_for(
    run: Any, changes: dict[str, Any], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "bitsandbytes" else real(name, *rest),
    )
    with pytest.raises(
        VersatuneError, match=rf"{named} needs bitsandbytes.*versatune\[quantized\]"
    ):
        run("without", **changes)


def test_quantization_without_adapters_is_refused() -> None:
    with pytest.raises(ValueError, match="quantization trains adapters: give lora"):
        TrainParams.model_validate({**PARAMS, "lora": None})
