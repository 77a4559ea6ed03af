"""Low-rank adapters on the layers a person names."""

from typing import Any

import torch

from versatune.errors import VersatuneError
from versatune.modeling.influence import first_line
from versatune.modeling.ties import shared_layers, tied_embedding, without_advice
from versatune.training.config import LoraParams

_MAMBA = ("mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h")
"""Kinds of model whose kernels read the weight of ``out_proj`` past an adapter: peft has none."""


def with_adapters(model: Any, lora: LoraParams, key: str) -> Any:
    """``model`` with fresh low-rank adapters, all else frozen; ``key`` is where they are asked for.

    Raises VersatuneError when the model has no such layers, when peft has no adapter for one, and
    when one shares its weight with another layer that it can't be parted from.
    """
    from peft import LoraConfig, get_peft_model

    everything = lora.target_modules == "all-linear"
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        exclude_modules=_without_adapter(model) or None if everything else None,
        task_type="CAUSAL_LM",
    )
    try:
        with without_advice():
            adapted = get_peft_model(model, config)
    except (ValueError, TypeError, AttributeError, KeyError, NotImplementedError) as error:
        reason = error if isinstance(error, ValueError) else first_line(error)
        raise VersatuneError(f"{key}.lora.target_modules: {reason}") from error
    for layer, names in shared_layers(adapted):
        if not tied_embedding(adapted.get_base_model(), layer):
            raise VersatuneError(
                f"{key}.lora.target_modules: {' and '.join(names)} are one weight, so an adapter "
                "of one of them can't be saved: it would change all. Name other layers in "
                f"{key}.lora.target_modules, or train all weights ({key}.lora: null)."
            )
    return adapted


def _without_adapter(model: Any) -> list[str]:
    """Names of linear layers that peft has no adapter for."""
    found = _more_than_linear(model)
    if getattr(model.config, "model_type", None) in _MAMBA:
        found += [name for name, _ in model.named_modules() if name.endswith(".out_proj")]
    return found


def _more_than_linear(model: Any) -> list[str]:
    """Names of layers that are linear by class alone, such as routers: an adapter adds to what a
    linear layer returns, and these return something else. Each is tried; weights in 4 bits are
    linear layers that were turned into such, for which peft has special adapters."""
    plain = torch.nn.Linear.forward
    return [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear)
        and layer.weight.is_floating_point()
        and type(layer).forward is not plain
        and not _is_linear(layer)
    ]


@torch.no_grad()
def _is_linear(layer: torch.nn.Linear) -> bool:
    given = torch.ones(
        1, 3, layer.in_features, dtype=layer.weight.dtype, device=layer.weight.device
    )
    try:
        found = layer(given)
    except Exception:
        return False
    wanted = torch.nn.Linear.forward(layer, given)
    close = 1e-2 if wanted.dtype == torch.bfloat16 else 1e-5
    return (
        isinstance(found, torch.Tensor)
        and found.shape == wanted.shape
        and torch.allclose(found, wanted, rtol=close, atol=close)
    )
