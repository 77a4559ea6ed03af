"""One model trained in one way: by this project, by a bare loop, by TRL.

Each returns the median of :data:`WINDOWS` equal runs of steps after a warm-up, in one process: the
device is waited for at the ends of these runs alone. Tokens are real tokens.
"""

import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from tests.benchmarks.gpu.sampled import drawn
from tests.benchmarks.gpu.shapes import config_of, made_up_store, random_model
from versatune.modeling.heldout import HeldOut, heldout_losses
from versatune.modeling.room import GB, RESERVE, device_bytes
from versatune.training.attention import choose_layout
from versatune.training.batches import Collator
from versatune.training.compiled import compile_blocks
from versatune.training.config import TrainParams
from versatune.training.job import MixtureInputs
from versatune.training.memory import plan_memory
from versatune.training.rounds import Mixture
from versatune.training.throughput import Work, cost_of, peak_flops
from versatune.training.trainer import MixtureTrainer, arguments

WINDOWS = 3
SAMPLERS = ("static", "dynamic", "batch 1")
"""How texts are drawn, see ``sampled``; what ``auto`` takes on a GPU is the first."""


@dataclass(frozen=True)
class Line:
    """One model and way of training."""

    shape: str
    values: dict[str, Any]
    """Parameters of training."""
    contenders: tuple[str, ...] = ("ours", "trl", "bare")
    steps: int = 5
    """Optimiser steps of a window."""
    warm: int = 3
    """Steps before the first window."""
    limit: float = 75.0
    """Seconds that one contender may take, its start included."""
    together: bool = False
    """Whether all contenders run in one process: what they take of memory is not the point."""

    @property
    def all_steps(self) -> int:
        """Of a contender's process."""
        return self.warm + WINDOWS * self.steps


_FULL = {"dtype": "bfloat16"}
_LORA = {"lora": {}, "dtype": "bfloat16", "bf16": True, "per_device_train_batch_size": 2}
_QLORA = {**_LORA, "quantization": "nf4"}

LINES = {
    "SmolLM2 135M, full": Line(
        "smollm2", {**_FULL, "per_device_train_batch_size": 16, "max_length": 2048}, steps=10
    ),
    "Llama 1B, full": Line(
        "llama_1b", {**_FULL, "per_device_train_batch_size": 4, "max_length": 4096}
    ),
    "SmolLM2 135M, sampling": Line("smollm2", _FULL, SAMPLERS, limit=50, together=True),
    "Llama 8B, LoRA": Line("llama_8b", {**_LORA, "max_length": 4096}, steps=3, limit=90),
    "Llama 8B, QLoRA": Line(
        "llama_8b", {**_QLORA, "max_length": 4096}, ("ours",), steps=3, limit=90
    ),
    "Qwen 7B, LoRA": Line("qwen_7b", {**_LORA, "max_length": 4096}, ("ours",), steps=3, limit=90),
    "Mistral 7B, QLoRA": Line(
        "mistral_7b", {**_QLORA, "max_length": 4096}, ("ours",), steps=3, limit=90
    ),
    "Llama 1B, full, compiled": Line(
        "llama_1b",
        {**_FULL, "per_device_train_batch_size": 4, "max_length": 4096, "torch_compile": True},
        ("ours",),
        limit=120,
    ),
}
"""The most important first: time runs out on the last ones."""


def params_of(line: Line, tiny: bool) -> TrainParams:
    """The line's parameters; with checkpointed activations where the plan says they don't fit."""
    values = {**line.values, "rounds": 1, "steps_per_round": line.all_steps, "loss_guard": None}
    if tiny:
        values |= {"max_length": 128, "per_device_train_batch_size": 2}
    params = TrainParams.model_validate(values)
    room = device_bytes() * (1 - RESERVE)
    if plan_memory(config_of(line.shape, tiny), params).device > room:
        params = params.model_copy(update={"gradient_checkpointing": True})
    return params


@dataclass
class Clock(TrainerCallback):
    """The ends of the windows; waits for the device at these moments alone."""

    line: Line
    ends: list[float] = field(default_factory=list)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self.tick(state.global_step)

    def tick(self, step: int) -> None:
        """Note the time after ``step`` steps, when a window ends there."""
        counted = step - self.line.warm
        if counted >= 0 and counted % self.line.steps == 0:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.ends.append(time.perf_counter())

    def median(self, amounts: list[float]) -> float:
        """Of an amount by step, the median over the windows of its sum a second."""
        line = self.line
        return statistics.median(
            sum(amounts[line.warm + i * line.steps : line.warm + (i + 1) * line.steps])
            / (self.ends[i + 1] - self.ends[i])
            for i in range(WINDOWS)
        )


def ours(line: Line, tiny: bool) -> dict[str, Any]:
    """This project's training: speed, MFU, peak memory, and what adaptivity takes."""
    params, config = params_of(line, tiny), config_of(line.shape, tiny)
    plan = plan_memory(config, params)
    with tempfile.TemporaryDirectory() as folder:
        tokens = params.per_device_train_batch_size * params.max_length * line.all_steps
        split = made_up_store(Path(folder) / "store", config.vocab_size, params.max_length, tokens)
        model = random_model(config, params)
        cost = cost_of(model)
        layout = choose_layout(model, True, params.max_length, bf16=params.bf16)
        if params.torch_compile:
            compile_blocks(model)
        rows = _planned(params, split)
        shape = (params.per_device_train_batch_size, params.max_length)
        trainer = MixtureTrainer(
            model,
            arguments(params, Path(folder)),
            params,
            Path(folder),
            split,
            Collator(layout, shape if params.torch_compile else None),
            lambda _: rows,
        )
        clock = Clock(line)
        trainer.add_callback(clock)
        trainer.train()
        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        began = time.perf_counter()
        with torch.compiler.set_stance("force_eager"):
            heldout_losses(model, split, rows_per_domain=32, batch_tokens=None, progress=False)
        measuring = time.perf_counter() - began
    n = params.per_device_train_batch_size
    steps = [[e for row in rows[i : i + n] for e in row] for i in range(0, len(rows), n)]
    lengths = split.lengths.astype(np.float64)
    spent = [
        cost.flops(Work(lengths[s].sum(), split.supervised[s].sum(), (lengths[s] ** 2).sum()))
        for s in steps
    ]
    speed = clock.median([lengths[s].sum() for s in steps])
    limit = peak_flops()
    a_round = 100 * lengths[[e for s in steps for e in s]].sum() / len(steps) / speed
    return {
        "tokens_per_second": speed,
        "mfu": clock.median(spent) / limit if limit else None,
        "peak_gb": peak / GB,
        "planned_gb": plan.device / GB,
        "adaptivity": measuring / (measuring + a_round),
        "layout": layout,
        "gradient_checkpointing": params.gradient_checkpointing,
    }


def _planned(params: TrainParams, split: Any) -> list[Any]:
    """The packed rows of the one round, shares equal."""
    mixture = Mixture(params, split, MixtureInputs(), params.per_device_train_batch_size)
    same = HeldOut(nats_per_token=2.0, bits_per_byte=1.0, stderr=0.0, n_rows=1, n_tokens=1)
    mixture.begin(dict.fromkeys(split.domains, same), 0.0)
    return mixture.rows(0)


def bare(line: Line, tiny: bool) -> dict[str, Any]:
    """Forward, backward and AdamW on full rows of one document each, and nothing else."""
    params, config = params_of(line, tiny), config_of(line.shape, tiny)
    model = random_model(config, params)
    if params.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)
    shape = (params.per_device_train_batch_size, params.max_length)
    ids = torch.randint(3, config.vocab_size, (line.all_steps, *shape), device=model.device)
    clock = Clock(line)
    for step, batch in enumerate(ids, start=1):
        with torch.autocast(model.device.type, torch.bfloat16, enabled=params.bf16):
            loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        clock.tick(step)
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    speed = clock.median([float(ids[0].numel())] * line.all_steps)
    return {"tokens_per_second": speed, "peak_gb": peak / GB}


def trl(line: Line, tiny: bool) -> dict[str, Any]:
    """TRL's SFTTrainer, packed, on examples of the same lengths, with its best attention.

    With a flash attention package its examples are kept apart (``bfd``, padding-free). Without one
    that means a mask over the whole batch; its fastest way is then ``wrapped``: full rows through
    torch's fused kernel, in which examples see those before them.
    """
    import datasets
    from transformers.utils import is_flash_attn_2_available
    from trl import SFTConfig, SFTTrainer

    params, config = params_of(line, tiny), config_of(line.shape, tiny)
    flash = is_flash_attn_2_available()
    with tempfile.TemporaryDirectory() as folder:
        tokens = params.per_device_train_batch_size * params.max_length * line.all_steps
        split = made_up_store(Path(folder) / "store", config.vocab_size, params.max_length, tokens)
        examples = datasets.Dataset.from_dict({"input_ids": split.dataset["input_ids"][:]})
        model = random_model(config, params)
        if flash:
            model.set_attn_implementation("flash_attention_2")
        trainer = SFTTrainer(
            model=model,
            processing_class=_tokenizer(),
            train_dataset=examples,
            args=SFTConfig(
                output_dir=folder,
                packing=True,
                packing_strategy="bfd" if flash else "wrapped",
                max_length=params.max_length,
                per_device_train_batch_size=params.per_device_train_batch_size,
                max_steps=line.all_steps,
                learning_rate=1e-5,
                gradient_checkpointing=params.gradient_checkpointing,
                bf16=params.bf16,
                use_cpu=not torch.cuda.is_available(),
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
            ),
        )
        counted: list[float] = []
        collate = trainer.data_collator

        def counting(rows: list[dict[str, Any]]) -> Any:
            counted.append(sum(len(row["input_ids"]) for row in rows))
            return collate(rows)

        trainer.data_collator = counting
        clock = Clock(line)
        trainer.add_callback(clock)
        trainer.train()
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {
        "tokens_per_second": clock.median(counted),
        "peak_gb": peak / GB,
        "attention": "flash_attention_2, bfd" if flash else "sdpa, wrapped",
    }


def _drawn(engine: str, line: Line, tiny: bool) -> dict[str, Any]:
    return drawn(engine, line.shape, tiny)


def _tokenizer() -> Any:
    """TRL asks for one; the examples are tokens already."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "</s>": 1, "a": 2}
    raw = Tokenizer(models.WordLevel(words, unk_token="a"))
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="</s>")


CONTENDERS: dict[str, Callable[[Line, bool], dict[str, Any]]] = {
    "ours": ours,
    "bare": bare,
    "trl": trl,
    **{engine: partial(_drawn, engine) for engine in SAMPLERS},
}


def lacking(line: Line, contender: str) -> str | None:
    """Why a contender can't run here, known without starting it."""
    needed = {"trl": contender == "trl", "bitsandbytes": "quantization" in line.values}
    for package, wanted in needed.items():
        if wanted and importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
    return None
