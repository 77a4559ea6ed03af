"""Base models in 4 bits for QLoRA (arXiv 2305.14314), by bitsandbytes."""

import importlib.util
from typing import Any

BY_BITSANDBYTES = (
    *("nf4", "adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit", "paged_adamw_32bit"),
    *("lion_8bit", "lion_32bit", "paged_lion_8bit", "paged_lion_32bit"),
)
"""Quantisation and optimisers that are its own."""


def without_bitsandbytes(value: str | None) -> str | None:
    """What to say of a quantisation or optimiser that needs bitsandbytes, if it is not installed.

    None when all is well.
    """
    if value not in BY_BITSANDBYTES or importlib.util.find_spec("bitsandbytes") is not None:
        return None
    return f"{value} needs bitsandbytes, which is not installed: pip install 'versatune[quantized]'"


def nf4(computes: str) -> Any:
    """transformers' configuration of NF4 with double quantisation.

    ``computes``: the torch dtype's name that weights are turned into for each product.
    """
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, computes),
    )


def one_format(model: Any) -> Any:
    """``model`` with its 4-bit layers kept in the format they were loaded in.

    On CPUs with bfloat16 instructions bitsandbytes packs a layer again, with rounded constants, the
    first time it is used in eval mode: measuring would change what is trained afterwards.
    """
    from bitsandbytes.nn.modules import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
    return model
