"""Processes that measure one model together: how they are started, and which of them this is."""

import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from versatune.errors import VersatuneError
from versatune.work import ParallelParams
from versatune.work.calls import Call
from versatune.work.parallel import side_by_side


def rank() -> int:
    """The number of this process, 0 for the first or the only one."""
    import torch.distributed as dist

    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_initialized() else 1


def together(function: Callable[[], None], processes: int) -> None:
    """Call ``function`` in each of ``processes`` processes of one group, on a GPU each where there
    are GPUs.

    It must pass pickle. Raises VersatuneError when there are fewer GPUs than processes.
    """
    import torch

    devices = torch.cuda.device_count()
    if 0 < devices < processes:
        raise VersatuneError(
            f"evaluate.processes is {processes}, and this machine has {devices} GPUs: give at most "
            "that many."
        )
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder) / "meeting"
        shared = {"function": function, "processes": processes, "meeting": meeting}
        calls = [
            Call(f"process {number}", _take_part, {"number": number, **shared})
            for number in range(processes)
        ]
        side_by_side(calls, ParallelParams(workers=processes, gpus=min(1, devices)))


def _take_part(function: Callable[[], None], number: int, processes: int, meeting: Path) -> None:
    import torch
    import torch.distributed as dist

    dist.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo",
        init_method=f"file://{meeting}",
        rank=number,
        world_size=processes,
        timeout=timedelta(weeks=52),  # one may have longer questions than the others
    )
    try:
        function()
    finally:
        dist.destroy_process_group()
