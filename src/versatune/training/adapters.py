"""Low-rank adapters on the layers that the parameters name."""

from typing import Any

import torch

from versatune.errors import VersatuneError
from versatune.modeling.influence import first_line
from versatune.modeling.ties import shared_layers, tied_embedding, without_advice
from versatune.training.config import LoraParams


def with_adapters(model: Any, lora: LoraParams, key: str) -> Any:
    """``model`` with fresh low-rank adapters, all else frozen; ``key`` is where they are asked for.

    Raises VersatuneError when the model has no such layers, when peft has no adapter for one, and
    when one shares its weight with another layer that it can't be parted from.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    if lora.target_modules == "all-linear":
        config.exclude_modules = _without_adapter(model, config) or None
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


def _without_adapter(model: Any, config: Any) -> list[str]:
    """Names of linear layers that peft has no adapter for: kernels of Mamba read the weight of some
    past it, and only a private function of peft knows of which."""
    from peft.tuners.tuners_utils import _check_lora_target_modules_mamba

    found = _more_than_linear(model)
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear):
            try:
                _check_lora_target_modules_mamba(config, model, name.rpartition(".")[2])
            except ValueError:
                found.append(name)
    return found


def _more_than_linear(model: Any) -> list[str]:
    """Names of layers that are linear only by class, such as routers: an adapter adds to what a
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
