"""The device and memory of a training, for the report."""

import resource
import sys
from typing import Any

import torch


def machine() -> dict[str, Any]:
    """``device`` by name, and ``peak_memory_bytes`` of this process until now.

    On a GPU the peak of its tensors; on a CPU the peak of the process, earlier work included.
    """
    if torch.cuda.is_available():
        return {
            "device": torch.cuda.get_device_name(),
            "peak_memory_bytes": torch.cuda.max_memory_allocated(),
        }
    unit = 1 if sys.platform == "darwin" else 1024
    threads = torch.get_num_threads()
    return {
        "device": f"CPU, {threads} thread{'s' if threads > 1 else ''}",
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
    }
