"""The engines that generate or score texts: transformers, or vLLM in this process."""

import importlib.util
from typing import Any, Literal

from pydantic import Field

from versatune.params import Params

Engine = Literal["auto", "dynamic", "static", "vllm"]

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
"""In which a model is loaded to write or to score; ``auto``: the one it was saved in."""


class VllmParams(Params):
    """How vLLM runs a model in this process, in its own names."""

    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs that one copy of the model is divided over."""
    data_parallel_size: int = Field(default=1, ge=1)
    """Copies of the model, each on GPUs of its own. Only for evaluation:
    lm-evaluation-harness starts them with Ray (extra `ray`)."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Part of each GPU's memory that vLLM takes."""
    max_model_len: int | None = Field(default=None, ge=1)
    """Tokens of a question and its answer at most, for which vLLM keeps room; null: what the model
    reads, which may be more than a GPU has room for. Longer questions are truncated at the
    beginning. Only for evaluation: samples are as long as ``max_new_tokens``."""


def without_vllm(engine: Engine, params: VllmParams | None = None) -> str | None:
    """The error for an engine that is not installed; None if it is."""
    if engine != "vllm":
        return None
    if importlib.util.find_spec("vllm") is None:
        return "vLLM is not installed: pip install vllm (it needs a GPU), or use `auto`"
    copies = params.data_parallel_size if params is not None else 1
    if copies > 1 and importlib.util.find_spec("ray") is None:
        return "several copies in vLLM need Ray, which is not installed: pip install versatune[ray]"
    return None


def takes_static_cache(model: Any) -> bool:
    """Whether transformers can generate with this model from a cache of fixed size, compiled.

    Models with a state in place of keys and values (Mamba, RWKV) can't.
    """
    return bool(model._can_compile_fullgraph and model._supports_default_dynamic_cache())
