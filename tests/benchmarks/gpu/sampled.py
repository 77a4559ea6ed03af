"""How fast texts are drawn from a model: by the probe's engines, and one by one.

Tokens a second, the median of :data:`WINDOWS` batches after one that compiles what is compiled.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tests.benchmarks.gpu.shapes import config_of, random_model
from versatune.samplers.decoding import Batch, Decoder
from versatune.samplers.static import StaticDecoder
from versatune.training.config import TrainParams

WINDOWS = 3
START = [1]


def drawn(engine: str, shape: str, tiny: bool) -> dict[str, Any]:
    """``engine``: ``static`` or ``dynamic``, 256 texts at a time; ``batch 1``: by generate."""
    rows, limit = (8, 16) if tiny else (256, 128)
    rows = 1 if engine == "batch 1" else rows
    model = random_model(config_of(shape, tiny), TrainParams(dtype="bfloat16")).eval()
    batch = _one_by_one(model, limit) if engine == "batch 1" else _batch(engine, model, rows, limit)
    seconds = [_seconds(batch) for _ in range(1 + WINDOWS)][1:]
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {"tokens_per_second": rows * limit / statistics.median(seconds), "peak_gb": peak / 1e9}


def _batch(engine: str, model: Any, rows: int, limit: int) -> Callable[[], Any]:
    """No token ends a text: all have the same number of tokens."""
    decoder = (StaticDecoder if engine == "static" else Decoder)(model, START, limit)
    uniforms = np.random.default_rng(0).random((rows, limit))
    return lambda: list(decoder.sample(Batch(uniforms, set())))


def _one_by_one(model: Any, limit: int) -> Callable[[], Any]:
    """As code that draws texts one after the other does it."""
    ids = torch.tensor([START], device=model.device)
    how = {"do_sample": True, "top_k": 0, "max_new_tokens": limit, "min_new_tokens": limit}
    return lambda: model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **how)


def _seconds(batch: Callable[[], Any]) -> float:
    began = time.perf_counter()
    with torch.inference_mode():
        batch()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began
