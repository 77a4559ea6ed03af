"""The precision of a training: where `auto` leaves it to the device, and the base model in it."""

import logging
from typing import Any

import torch

from versatune.modeling.checkpoints import CheckpointRef, load_model
from versatune.modeling.precision import bfloat16_time, fast_in_bfloat16
from versatune.modeling.quantized import nf4, one_format
from versatune.training.config import TrainParams
from versatune.training.machine import machine

logger = logging.getLogger(__name__)


def resolved(params: TrainParams) -> TrainParams:
    """``params`` with ``bf16: auto`` and ``dtype: auto`` settled for the device that trains.

    Given values stay: a ``dtype: bfloat16`` with adapters computes in bfloat16 anywhere.
    """
    if params.bf16 != "auto" and params.dtype != "auto":
        return params
    fast = fast_in_bfloat16(_device())
    dtype = params.dtype
    if dtype == "auto":
        # Adapters over bfloat16 weights need bf16; where that is off, so is bfloat16.
        off = params.lora is not None and params.bf16 is False
        dtype = "bfloat16" if fast and not off else "float32"
    bf16 = params.bf16
    if bf16 == "auto":
        bf16 = fast or (params.lora is not None and dtype == "bfloat16")
    return params.model_copy(update={"bf16": bf16, "dtype": dtype})


def load_base(base: CheckpointRef, params: TrainParams) -> Any:
    """The base model in the training dtype, or in 4 bits, then on the device that trains.

    ``params``: with their precision resolved.
    """
    if params.quantization != "nf4":
        return load_model(base, dtype=params.dtype)
    quantization = nf4("bfloat16" if params.autocast else params.dtype)
    return one_format(load_model(base, dtype=params.dtype, quantization=quantization))


def warn_if_slow(params: TrainParams, key: str) -> None:
    """Warn when ``params`` (resolved) ask for a precision in which this device is slow.

    ``key`` is where they are written. On CPUs float32 is never warned about: small models don't
    gain by bfloat16.
    """
    device = _device()
    fast, wanted = fast_in_bfloat16(device), params.bf16 or params.dtype == "bfloat16"
    if wanted == fast or (device == "cpu" and not wanted):
        return
    asked = "bfloat16" if wanted else "float32"
    times = bfloat16_time(device)
    logger.warning(
        "%s computes in %s, and a product of matrices takes %.1f times as long in %s as in %s on "
        "this device (%s; measured now). `%s.bf16: auto` takes what the device is fast in.",
        key,
        asked,
        times if wanted else 1 / times,
        asked,
        "float32" if wanted else "bfloat16",
        machine()["device"],
        key,
    )


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
