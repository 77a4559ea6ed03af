"""What only a GPU can show; `make gpu` runs these. Each has its like on a CPU elsewhere."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.helpers.architectures import tiny_config
from versatune.artifacts import FolderRef
from versatune.data.store import TokenizedSplit
from versatune.modeling.checkpoints import CheckpointRef, load_tokenizer
from versatune.modeling.losses import TokenLoss
from versatune.training import TrainParams, TrainResult, train
from versatune.training.attention import choose_layout
from versatune.training.batches import Collator
from versatune.training.compiled import compile_blocks
from versatune.training.memory import plan_memory
from versatune.training.trainer import MixtureTrainer, arguments

pytestmark = pytest.mark.gpu

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
"""So that they can be tried without a GPU: `pytest -m gpu`; what is of a GPU alone is skipped."""

on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="is of a GPU alone")

PARAMS: dict[str, Any] = {
    **{"rounds": 2, "steps_per_round": 4, "max_length": 64, "per_device_train_batch_size": 2},
    **{"heldout_rows_per_domain": 4, "learning_rate": 1e-3, "logging_steps": 2},
}
SHAPE = {"vocab_size": 512, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}


def run(store: FolderRef, base: CheckpointRef, folder: Path, **values: Any) -> TrainResult:
    params = TrainParams.model_validate({**PARAMS, **values})
    return train(store, base, params, folder=folder)


def losses(result: TrainResult) -> np.ndarray:
    return result.history["validation_loss"].to_numpy()


@pytest.mark.parametrize(
    "kind", ["llama", "qwen2", "qwen3", "mistral", "phi3", "granite", "olmo2", "smollm3", "glm4"]
)
def test_plain_attention_is_trained_flat_in_bfloat16(kind: str) -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SHAPE, **HEADS, pad_token_id=0)
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).to(DEVICE)
    assert choose_layout(model.train(), True, 64) == "varlen"


@pytest.mark.parametrize("kind", ["gemma2", "gemma3_text", "gpt_oss", "cohere2", "gpt2"])
def test_other_attention_is_trained_in_some_layout(
    kind: str, tiny_checkpoint: CheckpointRef
) -> None:
    torch.manual_seed(0)
    config = tiny_config(kind, load_tokenizer(tiny_checkpoint))
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).to(DEVICE)
    assert choose_layout(model.train(), True, 64) in ("varlen", "position_ids", "padded")


def test_a_killed_training_goes_on(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    whole = losses(run(tiny_store, tiny_checkpoint, tmp_path / "whole", bf16=True))
    call = tmp_path / "call.py"
    call.write_text(
        "import os, sys, json\n"
        "from pathlib import Path\n"
        "from versatune.artifacts import FolderRef\n"
        "from versatune.modeling.checkpoints import CheckpointRef\n"
        "from versatune.training import TrainParams, train\n"
        "given = json.loads(sys.argv[1])\n"
        "train(FolderRef.model_validate(given['store']),\n"
        "      CheckpointRef.model_validate(given['base']),\n"
        "      TrainParams.model_validate(given['params']), folder=Path(given['folder']),\n"
        "      on_step=lambda e: os._exit(9) if e['step'] == 6 else None)\n"
    )
    given = {
        "store": json.loads(tiny_store.model_dump_json()),
        "base": json.loads(tiny_checkpoint.model_dump_json()),
        "params": {**PARAMS, "bf16": True},
        "folder": str(tmp_path / "killed"),
    }
    killed = subprocess.run(
        [sys.executable, str(call), json.dumps(given)], check=False, timeout=200
    )
    assert killed.returncode == 9
    went_on = losses(run(tiny_store, tiny_checkpoint, tmp_path / "killed", bf16=True))
    np.testing.assert_allclose(went_on, whole, rtol=1e-3)


def trainer_of(store: FolderRef, folder: Path, **values: Any) -> MixtureTrainer:
    params = TrainParams.model_validate(
        {**PARAMS, "rounds": 1, "steps_per_round": 8, "logging_steps": 8, **values}
    )
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", **SHAPE, **HEADS)
    model: Any = AutoModelForCausalLM.from_config(config).to(DEVICE).train()
    layout = choose_layout(model, True, 64, bf16=params.autocast)
    shape = (params.per_device_train_batch_size, params.max_length)
    collator = Collator(layout, shape if params.torch_compile else None)
    if params.torch_compile:
        compile_blocks(model)
    rows = [(i, i + 40) for i in range(16)]
    split = TokenizedSplit.load(store, "train")
    return MixtureTrainer(
        model, arguments(params, folder), params, folder, split, collator, lambda _: rows
    )


@on_cuda
def test_no_step_waits_for_the_device(tiny_store: FolderRef, tmp_path: Path) -> None:
    trainer = trainer_of(tiny_store, tmp_path, bf16=True)
    step, waited = trainer.training_step, []

    def watched(*args: Any, **kwargs: Any) -> Any:
        torch.cuda.set_sync_debug_mode("error" if trainer.state.global_step > 1 else "default")
        try:
            return step(*args, **kwargs)
        except RuntimeError as error:
            waited.append(str(error))
            raise
        finally:
            torch.cuda.set_sync_debug_mode("default")

    trainer.training_step = watched  # type: ignore[method-assign]
    trainer.train()
    assert not waited


@on_cuda
def test_compiled_blocks_train_the_same_model(tiny_store: FolderRef, tmp_path: Path) -> None:
    found = []
    for compiled in (False, True):
        torch._dynamo.reset()
        trainer = trainer_of(
            tiny_store, tmp_path / str(compiled), bf16=True, torch_compile=compiled
        )
        trainer.train()
        found.append(trainer.summed().numpy()[:, 0])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-2)


@on_cuda
def test_the_plan_is_near_what_training_takes() -> None:
    values = {"per_device_train_batch_size": 8, "max_length": 1024, "dtype": "bfloat16"}
    config = AutoConfig.for_model(
        "llama",
        **{"vocab_size": 32000, "hidden_size": 1024, "intermediate_size": 2816},
        **{"num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 8},
    )
    params = TrainParams.model_validate({**PARAMS, **values})
    planned = plan_memory(config, params).device
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).to(DEVICE).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    loss = TokenLoss(model)
    ids = torch.randint(3, 32000, (8, 1024), device=DEVICE)
    at = torch.arange(0, 8191, 2, device=DEVICE)
    for _ in range(2):
        loss(ids, at, ids.flatten()[at + 1]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    taken = torch.cuda.max_memory_allocated() - before
    assert 0.7 * taken < planned < 1.5 * taken


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_fsdp_over_two_gpus_trains_what_one_does(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path, project_root: Path
) -> None:
    config = (project_root / "deploy/accelerate/fsdp.yaml").read_text()
    file = tmp_path / "fsdp.yaml"
    file.write_text(config.replace("num_processes: 8", "num_processes: 2"))
    one = run(tiny_store, tiny_checkpoint, tmp_path / "one", gradient_accumulation_steps=2)
    two = run(tiny_store, tiny_checkpoint, tmp_path / "two", launcher={"config_file": str(file)})
    np.testing.assert_allclose(losses(two), losses(one), rtol=1e-3)
