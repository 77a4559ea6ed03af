"""What a GPU makes of this: speed, share of its peak, memory, beside a bare loop and TRL.

    python -m tests.benchmarks.gpu [--out gpu.json] [--minutes 5] [--only NAME ...] [--tiny]

Each line trains a model with random weights of a real shape, in bfloat16, on packed rows of made-up
examples (lengths log-normal about 350 tokens, as instruction data has them), in a process of its
own: one that fails or runs out of memory is a line that says so. ``ours`` is the training of this
project, held-out measurement included in its share; ``bare`` is forward, backward and AdamW on full
rows with transformers' best attention; ``trl`` is TRL's SFTTrainer, packed, with its best attention
(left out where TRL is not installed). Tokens are real tokens. MFU is
``versatune.training.throughput``'s; the peak is the card's dense bfloat16 one.

``--tiny`` is the same with shapes of a few thousand weights: it runs on a CPU to its end.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from tests.benchmarks.bench_training import mixture_of
from versatune.artifacts import FolderRef
from versatune.data.store import TokenizedSplit
from versatune.modeling.heldout import heldout_losses
from versatune.training.attention import choose_layout
from versatune.training.batches import Collator
from versatune.training.config import TrainParams
from versatune.training.memory import GB, plan_memory
from versatune.training.throughput import cost_of, peak_flops
from versatune.training.trainer import MixtureTrainer, arguments

DOMAINS = ("law", "medicine", "code")


@dataclass(frozen=True)
class Line:
    """One model and way of training."""

    shape: str
    values: dict[str, Any]
    """Parameters of training."""
    contenders: tuple[str, ...] = ("ours", "bare", "trl")


def _lora(**more: Any) -> dict[str, Any]:
    return {"lora": {}, "dtype": "bfloat16", "bf16": True, "gradient_checkpointing": True, **more}


_FULL = {"dtype": "bfloat16"}

LINES = {
    "SmolLM2 135M, full": Line(
        "smollm2", {**_FULL, "per_device_train_batch_size": 16, "max_length": 2048}
    ),
    "Llama 1B, full": Line(
        "llama_1b", {**_FULL, "per_device_train_batch_size": 4, "max_length": 4096}
    ),
    "Llama 8B, LoRA": Line("llama_8b", _lora(per_device_train_batch_size=2, max_length=4096)),
    "Qwen 7B, LoRA": Line(
        "qwen_7b", _lora(per_device_train_batch_size=2, max_length=4096), ("ours",)
    ),
    "Mistral 7B, QLoRA": Line(
        "mistral_7b",
        _lora(per_device_train_batch_size=1, max_length=4096, quantization="nf4"),
        ("ours",),
    ),
}

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
                layer.weight.data.cpu(),
                requires_grad=False,
                quant_type="nf4",
                compress_statistics=True,
            )
            if layer.bias is not None:
                small.bias = layer.bias
            setattr(module, name, small.to(device))
    one_format(model)


def made_up_store(folder: Path, vocabulary: int, longest: int, rows: int) -> TokenizedSplit:
    """A store's split of random tokens, in examples of the lengths of instruction data."""
    import datasets

    rng = np.random.default_rng(0)
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
        FolderRef(path=folder, fingerprint="made up", facts={"domains": list(DOMAINS)}), "train"
    )


class Clock(TrainerCallback):
    """When the counted steps began and ended; waits for the device at these two moments alone."""

    def __init__(self, warm: int, last: int) -> None:
        self._warm, self._last = warm, last
        self.began = self.ended = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        if state.global_step in (self._warm, self._last):
            _wait()
            now = time.perf_counter()
            self.began, self.ended = self.ended or now, now


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ours(line: Line, tiny: bool, steps: int, warm: int) -> dict[str, float]:
    """Median speed of this project's training, MFU, peak memory, and what adaptivity takes."""
    params = params_of(line, tiny, steps)
    config = config_of(line.shape, tiny)
    plan = plan_memory(config, params)
    with tempfile.TemporaryDirectory() as folder:
        tokens_a_step = params.per_device_train_batch_size * params.max_length
        enough = int(tokens_a_step * steps / 200 / len(DOMAINS)) + 64
        split = made_up_store(Path(folder) / "store", config.vocab_size, params.max_length, enough)
        model = random_model(config, params)
        cost = cost_of(model)
        layout = choose_layout(model, True, params.max_length)
        rows = mixture_of(params, split).rows(0)
        trainer = MixtureTrainer(
            model,
            arguments(params, Path(folder)),
            params,
            Path(folder),
            split,
            Collator(layout),
            lambda _: rows,
        )
        clock = Clock(warm, steps)
        trainer.add_callback(clock)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        began = time.perf_counter()
        heldout_losses(model, split, rows_per_domain=32, batch_tokens=None, progress=False)
        measuring = time.perf_counter() - began
    counted = [i for row in rows[warm * params.per_device_train_batch_size :] for i in row]
    lengths = split.lengths[counted].astype(np.float64)
    seconds = clock.ended - clock.began
    flops = cost.flops(lengths.sum(), split.supervised[counted].sum(), (lengths**2).sum())
    limit = peak_flops()
    a_round = 100 * seconds / (steps - warm)
    return {
        "tokens_per_second": lengths.sum() / seconds,
        "mfu": flops / seconds / limit if limit else float("nan"),
        "peak_gb": peak / GB,
        "planned_gb": plan.device / GB,
        "adaptivity": measuring / (measuring + a_round),
    }


def bare(line: Line, tiny: bool, steps: int, warm: int) -> dict[str, float]:
    """Forward, backward and AdamW on full rows of one document each, and nothing else."""
    params = params_of(line, tiny, steps)
    config = config_of(line.shape, tiny)
    model = random_model(config, params)
    if params.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)
    shape = (params.per_device_train_batch_size, params.max_length)
    ids = torch.randint(3, config.vocab_size, (steps, *shape), device=model.device)
    clock = time.perf_counter()
    for step, batch in enumerate(ids):
        if step == warm:
            _wait()
            clock = time.perf_counter()
        with torch.autocast(model.device.type, torch.bfloat16, enabled=params.bf16):
            loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    _wait()
    return {"tokens_per_second": ids[warm:].numel() / (time.perf_counter() - clock)}


def trl(line: Line, tiny: bool, steps: int, warm: int) -> dict[str, float]:
    """TRL's SFTTrainer, packed, on examples of the same lengths."""
    from transformers.utils import is_flash_attn_2_available
    from trl import SFTConfig, SFTTrainer

    params = params_of(line, tiny, steps)
    config = config_of(line.shape, tiny)
    with tempfile.TemporaryDirectory() as folder:
        tokens = params.per_device_train_batch_size * params.max_length * steps
        enough = int(tokens / 200 / len(DOMAINS)) + 64
        split = made_up_store(Path(folder) / "store", config.vocab_size, params.max_length, enough)
        import datasets

        examples = datasets.Dataset.from_dict(
            {
                "input_ids": [
                    split.dataset[i]["input_ids"].tolist() for i in range(len(split.lengths))
                ]
            }
        )
        model = random_model(config, params)
        if is_flash_attn_2_available():
            model.set_attn_implementation("flash_attention_2")
        trainer = SFTTrainer(
            model=model,
            processing_class=_tokenizer(),
            train_dataset=examples,
            args=SFTConfig(
                output_dir=folder,
                packing=True,
                max_length=params.max_length,
                per_device_train_batch_size=params.per_device_train_batch_size,
                max_steps=steps,
                learning_rate=1e-5,
                gradient_checkpointing=params.gradient_checkpointing,
                bf16=params.bf16,
                use_cpu=not torch.cuda.is_available(),
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
            ),
        )
        counted: list[int] = []
        collate = trainer.data_collator

        def counting(rows: list[dict[str, Any]]) -> Any:
            counted.append(sum(len(row["input_ids"]) for row in rows))
            return collate(rows)

        trainer.data_collator = counting
        clock = Clock(warm, steps)
        trainer.add_callback(clock)
        trainer.train()
    return {"tokens_per_second": sum(counted[warm:steps]) / (clock.ended - clock.began)}


def _tokenizer() -> Any:
    """TRL asks for one; the examples are tokens already."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "</s>": 1, "a": 2}
    raw = Tokenizer(models.WordLevel(words, unk_token="a"))
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="</s>")


CONTENDERS: dict[str, Callable[..., dict[str, float]]] = {"ours": ours, "bare": bare, "trl": trl}


def params_of(line: Line, tiny: bool, steps: int) -> TrainParams:
    """The line's parameters; tiny ones for a CPU."""
    values = {**line.values, "rounds": 1, "steps_per_round": steps, "loss_guard": None}
    if tiny:
        values |= {"max_length": 128, "per_device_train_batch_size": 2}
    return TrainParams.model_validate(values)


def measure(name: str, contender: str, tiny: bool) -> dict[str, Any]:
    """The line by this contender, in a process of its own; ``error`` when it fails."""
    command = [sys.executable, "-m", "tests.benchmarks.gpu", "--measure", name, contender]
    try:
        done = subprocess.run(
            [*command, *(["--tiny"] if tiny else [])],
            check=False,
            capture_output=True,
            text=True,
            timeout=180,
        )
    except subprocess.TimeoutExpired:
        return {"error": "took more than 180 s"}
    last = done.stdout.strip().rsplit("\n", 1)[-1]
    if done.returncode or not last.startswith("{"):
        return {"error": (done.stderr.strip().rsplit("\n", 1)[-1] or "no output")[:200]}
    found: dict[str, Any] = json.loads(last)
    return found


def about() -> dict[str, Any]:
    """Card, driver and versions."""
    import accelerate
    import peft
    import transformers

    card = torch.cuda.get_device_name(0) if torch.cuda.is_available() else platform.processor()
    driver = (
        subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            check=False,
            capture_output=True,
            text=True,
        )
        if torch.cuda.is_available()
        else None
    )
    return {
        "device": card or "CPU",
        "driver": driver.stdout.strip() if driver else None,
        "peak_bf16_flops": peak_flops(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "accelerate": accelerate.__version__,
    }


def row(name: str, found: dict[str, dict[str, Any]]) -> str:
    """A line of the table."""
    mine = found["ours"]
    if "error" in mine:
        return f"{name:22} not finished: {mine['error']}"
    speed = mine["tokens_per_second"]
    beside = "  ".join(
        f"{other} {speed / given['tokens_per_second']:.2f}"
        if "error" not in given
        else f"{other} failed"
        for other, given in found.items()
        if other != "ours"
    )
    return (
        f"{name:22} {speed:9,.0f} tokens/s  MFU {mine['mfu']:.2f}  "
        f"{mine['peak_gb']:5.1f} GB (planned {mine['planned_gb']:.1f})  "
        f"adaptivity {mine['adaptivity']:.1%}  ours / it: {beside}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--minutes", type=float, default=5.0, help="begin no line after so long")
    parser.add_argument("--only", nargs="*", default=list(LINES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--measure", nargs=2, metavar=("LINE", "CONTENDER"))
    options = parser.parse_args()
    if options.measure:
        name, contender = options.measure
        steps, warm = (6, 2) if options.tiny else (13, 3)
        print(json.dumps(CONTENDERS[contender](LINES[name], options.tiny, steps, warm)))
        return
    ends = time.monotonic() + 60 * options.minutes
    results: dict[str, Any] = {"about": about(), "lines": {}}
    print(json.dumps(results["about"]))
    for name in options.only:
        tries: dict[str, list[dict[str, Any]]] = {c: [] for c in LINES[name].contenders}
        for _ in range(options.repeats):
            for contender, made in tries.items():
                if time.monotonic() < ends and not (made and "error" in made[-1]):
                    made.append(measure(name, contender, options.tiny))
        found = {c: _median(made) for c, made in tries.items()}
        results["lines"][name] = found
        print(row(name, found), flush=True)
        options.out.write_text(json.dumps(results, indent=2) + "\n")


def _median(made: list[dict[str, Any]]) -> dict[str, Any]:
    """Each number's median over the repeats; the error when there is one."""
    if not made:
        return {"error": "no time left"}
    failed = next((m for m in made if "error" in m), None)
    if failed:
        return failed
    return {key: statistics.median(m[key] for m in made) for key in made[0]} | {"n": len(made)}


if __name__ == "__main__":
    main()
