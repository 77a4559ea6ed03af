"""A training that no device here holds is refused before the first node."""

from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig

from versatune.demo.base_model import BaseModelParams
from versatune.project import present_checks
from versatune.training import TrainParams, run
from versatune.work import ParallelParams

GB = 10**9
QLORA = {"lora": {}, "dtype": "bfloat16", "bf16": True, "gradient_checkpointing": True}


@pytest.fixture(scope="module")
def seven_b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a 7B model: its configuration, and a file of its size that takes no room."""
    folder = tmp_path_factory.mktemp("seven_b")
    LlamaConfig(
        vocab_size=32000, hidden_size=8192, intermediate_size=22016, num_hidden_layers=8,
        num_attention_heads=64, architectures=["LlamaForCausalLM"],
    ).save_pretrained(folder)  # fmt: skip
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(13 * GB)
    return folder


def told(folder: Path, train: dict[str, Any], engine: str = "local") -> list[str]:
    base = BaseModelParams(kind="pretrained", name_or_path=str(folder))
    shape = {"per_device_train_batch_size": 1, "max_length": 1024}
    params = TrainParams.model_validate({**shape, **train})
    given = ParallelParams.model_validate({"engine": engine})
    return [p.message for p in present_checks.check_memory(base, params, given)]


def test_a_7b_model_on_24_gb(seven_b: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "device_bytes", lambda: 24 * GB)
    (full,) = told(seven_b, {"bf16": True})
    assert "22.6 GB of its 24.0 can be used" in full
    assert "train.lora: {} with dtype: bfloat16" in full and not full.endswith(".")
    assert told(seven_b, QLORA) == []
    assert told(seven_b, {**QLORA, "quantization": "nf4"}) == []


def test_only_what_trains_here_and_is_large_is_counted(
    seven_b: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "device_bytes", lambda: 2 * GB)
    assert "no change of parameters on this device" in told(seven_b, QLORA)[0]
    assert told(seven_b, {}, engine="ray") == []
    launcher = {"launcher": {"config_file": str(tmp_path / "fsdp.yaml")}}
    assert told(seven_b, launcher) == [] and told(tmp_path, {}) == []
    monkeypatch.setattr(present_checks, "LARGE", 14 * GB)
    assert told(seven_b, {}) == []
