"""The precision in which a device is fast."""

from time import perf_counter, process_time

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
    each = (product_seconds(device, dtype, size) for dtype in (torch.bfloat16, torch.float32))
    return next(each) / next(each)


def product_seconds(device: str, dtype: torch.dtype, size: int) -> float:
    """Seconds of the fastest of five products of matrices with ``size`` rows and columns.

    A CPU's time is that of its threads, so that other work on the machine slows nothing down.
    """
    on_gpu = device == "cuda"
    clock, threads = (perf_counter, 1) if on_gpu else (process_time, torch.get_num_threads())
    one = torch.ones(size, size, device=device, dtype=dtype)
    seconds = []
    for _ in range(6):  # the first one prepares the device
        start = clock()
        one @ one
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append((clock() - start) / threads)
    return min(seconds[1:])
