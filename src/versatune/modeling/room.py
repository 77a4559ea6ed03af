"""Whether a model fits where it is measured or sampled, before its weights are loaded."""

from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import safe_open

from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import CheckpointRef, load_model

GB = 10**9

RESERVE = 0.06
"""Part of a device that is left to the driver, the libraries' workspaces and fragmentation."""


def device_bytes() -> int:
    """Memory of the GPU that this process uses, in bytes; the machine's without one."""
    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(0).total_memory)
    return int(psutil.virtual_memory().total)


def weight_bytes(folder: Path, dtype: str) -> int:
    """Bytes of a checkpoint's weights in ``dtype``; ``auto``: as they are saved.

    Reads only the headers of the safetensors files.
    """
    total = 0
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (it is no mapping)
                part = weights.get_slice(name)
                numbers = torch.Size(part.get_shape()).numel()
                total += numbers * _SIZES.get(part.get_dtype() if dtype == "auto" else dtype, 2)
    return total


_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I8": 1, "U8": 1, "float32": 4, "float64": 8}
"""Bytes of a number; 2 for all that is not here."""


def check_room(*folders: Path, dtype: str, key: str, devices: int = 1) -> None:
    """Refuse to load weights that the device can't hold, and name what would fit.

    ``folders``: checkpoints that are there at the same time. ``key``: the block with ``dtype``.
    ``devices``: GPUs that the layers are divided over. Raises VersatuneError.
    """

    def needs(dtype: str) -> int:
        return sum(weight_bytes(folder, dtype) for folder in folders)

    needed, there = needs(dtype), device_bytes()
    room = int(there * (1 - RESERVE))
    if needed <= room * devices:
        return
    others = {d: needs(d) for d in ("auto", "bfloat16") if d != dtype}
    fitting = [
        f"{key}.dtype: {d} ({n / GB:.1f} GB)" for d, n in others.items() if n <= room * devices
    ]
    if key == "evaluate" and needed <= room * torch.cuda.device_count():
        fitting.append("evaluate.parallelize: true")
    advice = "; or ".join(fitting) if fitting else "no change of parameters on this device"
    raise VersatuneError(
        f"{key}.dtype is {dtype}, in which the weights in {' and '.join(map(str, folders))} take "
        f"{needed / GB:.1f} GB, and {room / GB:.1f} GB of the device's {there / GB:.1f} can be "
        f"used. What would fit: {advice}."
    )


def load_checked(ref: CheckpointRef, dtype: str, key: str) -> Any:
    """The model of a checkpoint on the device that runs it; raises as :func:`check_room`."""
    check_room(ref.path, dtype=dtype, key=key)
    model: Any = load_model(ref, dtype=dtype)
    return model.to("cuda") if torch.cuda.is_available() else model
