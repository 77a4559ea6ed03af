"""Models with random weights of real shapes, and examples of real lengths."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from versatune.artifacts import FolderRef
from versatune.data.store import TokenizedSplit
from versatune.training.config import TrainParams

DOMAINS = ("law", "medicine", "code")

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "smollm2": (
        "llama",
        {
            "vocab_size": 49152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "tie_word_embeddings": True,
        },
    ),
    "llama_1b": (
        "llama",
        {
            "vocab_size": 128256,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "tie_word_embeddings": True,
        },
    ),
    "llama_8b": (
        "llama",
        {
            "vocab_size": 128256,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
        },
    ),
    "qwen_7b": (
        "qwen2",
        {
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
        },
    ),
    "mistral_7b": (
        "mistral",
        {
            "vocab_size": 32768,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
        },
    ),
}
"""transformers' name of the architecture and the numbers of its configuration: SmolLM2-135M,
Llama 3.2 1B, Llama 3.1 8B, Qwen2.5 7B, Mistral 7B v0.3."""

TINY = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def config_of(shape: str, tiny: bool) -> Any:
    """transformers' configuration of a model of this shape."""
    from transformers import AutoConfig

    kind, values = SHAPES[shape]
    values = {**values, **TINY} if tiny else values
    return AutoConfig.for_model(kind, max_position_embeddings=8192, **values)


def random_model(config: Any, params: TrainParams) -> Any:
    """A model with random weights, on the device, prepared as training prepares it."""
    from transformers import AutoModelForCausalLM

    from versatune.training.adapters import with_adapters

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, params.dtype))
    if params.quantization:
        quantise(model, device)
    if params.lora:
        model = with_adapters(model, params.lora, "train")
    return model.train()


def quantise(model: Any, device: str) -> None:
    """Turn every linear layer but the head into NF4, one after the other."""
    import bitsandbytes as bnb

    from versatune.modeling.quantized import one_format

    head = model.get_output_embeddings()
    for module in list(model.modules()):
        for name, layer in list(module.named_children()):
            if not isinstance(layer, torch.nn.Linear) or layer is head:
                continue
            small = bnb.nn.Linear4bit(
                layer.in_features,
                layer.out_features,
                bias=layer.bias is not None,
                compute_dtype=torch.bfloat16,
                compress_statistics=True,
                quant_type="nf4",
            )
            small.weight = bnb.nn.Params4bit(
                layer.weight.data,
                requires_grad=False,
                quant_type="nf4",
                compress_statistics=True,
            )
            if layer.bias is not None:
                small.bias = layer.bias
            setattr(module, name, small.to(device))
            layer.weight = None
    one_format(model)
    # What peft and transformers know a quantised model by; biases and norms are frozen with it.
    model.is_loaded_in_4bit = True
    for parameter in model.parameters():
        parameter.requires_grad_(False)


def made_up_store(folder: Path, vocabulary: int, longest: int, tokens: int) -> TokenizedSplit:
    """A store's split with at least so many random tokens, in examples of the lengths of
    instruction data (log-normal about 350)."""
    import datasets

    rng = np.random.default_rng(0)
    rows = tokens // 200 // len(DOMAINS) + 64
    lengths = np.clip(rng.lognormal(5.6, 0.7, rows * len(DOMAINS)), 16, longest).astype(int)
    entries = []
    for i, length in enumerate(lengths):
        ids = rng.integers(3, vocabulary, length).astype(np.int32)
        prompt = max(1, int(length * 0.4))
        labels = ids.copy()
        labels[:prompt] = -100
        entries.append(
            {
                "input_ids": ids,
                "labels": labels,
                "domain": i // rows,
                "length": length,
                "n_supervised": length - prompt,
                "n_bytes": 4 * (length - prompt),
            }
        )
    kinds = {name: datasets.List(datasets.Value("int32")) for name in ("input_ids", "labels")}
    kinds |= {
        name: datasets.Value("int32") for name in ("domain", "length", "n_supervised", "n_bytes")
    }
    split = datasets.Dataset.from_list(entries, features=datasets.Features(kinds))
    split.save_to_disk(str(folder / "train"))
    return TokenizedSplit.load(
        FolderRef(path=folder, fingerprint="made up", metadata={"domains": list(DOMAINS)}), "train"
    )
