"""The base model's weights as training holds them."""

from typing import Any

from versatune.modeling.checkpoints import CheckpointRef, load_model
from versatune.modeling.quantized import nf4, one_format
from versatune.training.config import TrainParams


def load_base(base: CheckpointRef, params: TrainParams) -> Any:
    """In the training dtype, or in 4 bits, which then lie on the device that trains.

    ``params``: with their precision resolved.
    """
    if params.quantization != "nf4":
        return load_model(base, dtype=params.dtype)
    quantization = nf4("bfloat16" if params.autocast else params.dtype)
    return one_format(load_model(base, dtype=params.dtype, quantization=quantization))
