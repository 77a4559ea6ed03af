"""FLOPs of a training step, and what part of the device's peak they are (MFU).

Model FLOPs utilisation (PaLM, arXiv 2204.02311, appendix B) counts each needed operation once:
recomputed activations don't count. A weight that is trained costs 6 FLOPs a token (2 forward, 2 for
the gradient of its input, 2 for its own); a frozen weight of a LoRA training 4. Causal attention
costs, forward and backward, 6 x layers x heads x size x length of the example, on average over its
tokens. The head counts where a token is supervised, for it is applied only there.
"""

from dataclasses import dataclass
from typing import Any

import torch

from versatune.data.lengths import text_config
from versatune.modeling.precision import product_seconds

PEAKS = {
    "B200": 2250e12,
    "GH200": 989.4e12,
    "H200 NVL": 835.5e12,
    "H200": 989.4e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989.4e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A10G": 70e12,
    "A10": 125e12,
    "A6000": 154.8e12,
    "RTX 5090": 209.5e12,
    "RTX 4090": 165.2e12,
    "RTX 3090": 71e12,
}
"""Dense bfloat16 FLOP/s with float32 sums, from the makers' data sheets; the first name that is
part of the device's counts."""


@dataclass(frozen=True)
class Work:
    """What steps train on, over all processes."""

    tokens: float = 0.0
    supervised: float = 0.0
    squares: float = 0.0
    """The sum over examples of their length squared: what attention costs grows with it."""

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.tokens + other.tokens,
            self.supervised + other.supervised,
            self.squares + other.squares,
        )


@dataclass(frozen=True)
class Cost:
    """What one token of a model costs in training."""

    weights: float
    """FLOPs a token of all layers but the head."""
    head: float
    """FLOPs a supervised token."""
    attention: float
    """FLOPs a token and token of its example's length."""

    def flops(self, work: Work) -> float:
        """FLOPs of training on this much."""
        linear = self.weights * work.tokens + self.head * work.supervised
        return linear + self.attention * work.squares


def cost_of(model: Any) -> Cost:
    """Count the parameters of ``model`` (adapters and frozen weights counted apart)."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    head, lookup = base.get_output_embeddings(), base.get_input_embeddings()
    apart = {id(m.weight) for m in (head, lookup) if m is not None}
    config = text_config(base.config)
    chosen = getattr(config, "num_experts_per_tok", None)
    weights = 0.0
    for parameter in model.parameters():
        if parameter.dim() < 2 or id(parameter) in apart:
            continue
        # Experts lie in one parameter, the first of three dimensions; a token meets a few.
        met = chosen / parameter.shape[0] if chosen and parameter.dim() == 3 else 1.0
        weights += (6 if parameter.requires_grad else 4) * _size(parameter) * met
    heads = getattr(config, "num_attention_heads", 0) or 0
    size = getattr(config, "head_dim", None) or config.hidden_size // max(heads, 1)
    head_cost = 0.0
    if head is not None:
        head_cost = (6 if head.weight.requires_grad else 4) * _size(head.weight)
    return Cost(weights, head_cost, 6.0 * config.num_hidden_layers * heads * size)


def _size(parameter: Any) -> int:
    """Numbers in a weight; a 4-bit one holds two in a byte and knows its own shape."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(torch.Size(state.shape).numel())


def peak_flops() -> float | None:
    """The device's dense bfloat16 peak; None for a CPU and for devices :data:`PEAKS` lacks."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name(0)
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def measured_flops() -> float:
    """FLOP/s of the device's fastest product of matrices: no training is faster than that.

    In float32 on a CPU; larger and in bfloat16 on a GPU.
    """
    on_gpu = torch.cuda.is_available()
    chosen = ("cuda", torch.bfloat16, 8192) if on_gpu else ("cpu", torch.float32, 1024)
    return 2.0 * chosen[2] ** 3 / product_seconds(*chosen)
