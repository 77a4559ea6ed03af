"""What 7B and 70B need of each GPU, by the memory plan: the table in docs/hardware.md.

    python -m tests.benchmarks.memory_table

Nothing is loaded: models are counted on the meta device. A row is one way of training in bfloat16
with rows of 4,096 tokens, one a GPU, activations made again in the backward pass.
"""

from pathlib import Path
from typing import Any

from tests.benchmarks.gpu.shapes import SHAPES
from versatune.modeling.room import GB
from versatune.training.config import TrainParams
from versatune.training.memory import plan_memory

ACCELERATE = Path(__file__).parents[2] / "deploy" / "accelerate"

LLAMA_70B = {
    "vocab_size": 128256,
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
}

FULL: dict[str, Any] = {"dtype": "bfloat16"}
LORA: dict[str, Any] = {"dtype": "bfloat16", "bf16": True, "lora": {}}
QLORA: dict[str, Any] = {**LORA, "quantization": "nf4"}

ROWS: list[tuple[str, str, dict[str, Any], str | None]] = [
    ("Qwen 7B", "all weights", FULL, None),
    ("Qwen 7B", "all weights", FULL, "fsdp.yaml"),
    ("Qwen 7B", "all weights", FULL, "deepspeed.yaml"),
    ("Qwen 7B", "LoRA", LORA, None),
    ("Qwen 7B", "QLoRA", QLORA, None),
    ("Llama 70B", "all weights", FULL, "fsdp_nodes.yaml"),
    ("Llama 70B", "LoRA", LORA, "fsdp.yaml"),
    ("Llama 70B", "LoRA", LORA, "deepspeed_zero3.yaml"),
    ("Llama 70B", "QLoRA", QLORA, None),
]
"""Model, what is trained, its parameters, and the file in deploy/accelerate; None is one GPU."""


def config_of(model: str) -> Any:
    from transformers import AutoConfig

    kind, values = ("llama", LLAMA_70B) if model == "Llama 70B" else SHAPES["qwen_7b"]
    return AutoConfig.for_model(kind, max_position_embeddings=8192, **values)


def plan_of(model: str, values: dict[str, Any], file: str | None) -> Any:
    """The memory plan of a row of the table."""
    launcher = {"launcher": {"config_file": str(ACCELERATE / file)}} if file else {}
    given = {
        **{"max_length": 4096, "per_device_train_batch_size": 1, "gradient_checkpointing": True},
        **values,
        **launcher,
    }
    return plan_memory(config_of(model), TrainParams.model_validate(given))


def table() -> str:
    """Markdown."""
    head = ("model", "trained", "on", "weights", "gradients", "moments", "rest", "GB a GPU")
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    return "\n".join([*lines, *(line_of(*row) for row in ROWS)])


def line_of(model: str, trained: str, values: dict[str, Any], file: str | None) -> str:
    """A row of the table."""
    plan = plan_of(model, values, file)
    parts = (plan.weights, plan.gradients, plan.optimizer, plan.activations + plan.logits)
    numbers = [f"{part / GB:.1f}" for part in (*parts, plan.device)]
    where = f"`{file}`" if file else "one GPU"
    return f"| {' | '.join([model, trained, where, *numbers])} |"


if __name__ == "__main__":
    print(table())
