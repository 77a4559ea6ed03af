"""The precision in which a device is fast."""

import time

import torch


def fast_in_bfloat16(device: str = "cpu") -> bool:
    """Whether the device (``cpu`` or ``cuda``) has instructions for products in bfloat16.

    Without them it computes in float32 and converts, which takes longer than float32 alone. A GPU
    has them from compute capability 8.0 (Ampere) on.
    """
    if device == "cuda":
        return torch.cuda.get_device_capability()[0] >= 8
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


def bfloat16_time(device: str) -> float:
    """How long a product of matrices takes in bfloat16, in times of float32: measured, within
    a few hundredths of a second."""
    size = 4096 if device == "cuda" else 384
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(size, size, dtype=dtype, device=device)
        seconds[dtype] = min(_product(a) for _ in range(4))
    return seconds[torch.bfloat16] / seconds[torch.float32]


def _product(a: torch.Tensor) -> float:
    started = time.perf_counter()
    a @ a
    if a.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started
