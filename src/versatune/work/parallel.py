"""Independent calls side by side: local processes, or Ray over the machines of a cluster.

A call is a function and its arguments. What it makes lies in files, so a call that is cut off and
made again goes on where it was. Results come back in the order of the calls, whatever order they
ended in, and how many run at once does not change them: each call gets its own number of threads.
"""

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any

from versatune.errors import VersatuneError
from versatune.work.calls import Call, OnEvent, ParallelParams, Shares, emitting_to, named
from versatune.work.processes import run_in_processes
from versatune.work.ray_engine import run_on_ray

logger = logging.getLogger(__name__)


def side_by_side(
    calls: Sequence[Call], params: ParallelParams, on_event: OnEvent | None = None
) -> list[Any]:
    """The result of every call, in order.

    A process that is killed is replaced, at most :data:`RETRIES` times a call. When a call raises,
    the others are stopped and the error is raised with the call's name before it; what they have
    finished stays in their files.
    """
    if not calls:
        return []
    shares = resolve(params, len(calls))
    listener = on_event or (lambda _call, _event: None)
    if params.engine == "ray":
        return run_on_ray(calls, params, listener)
    if shares.workers == 1:
        with _threads(params.cpus):
            return [_here(call, listener) for call in calls]
    logger.info(
        "%d tasks, %d at a time, %d core%s%s each",
        *(len(calls), shares.workers, shares.cpus, "" if shares.cpus == 1 else "s"),
        f" and {shares.gpus} GPU" if shares.gpus else "",
    )
    return run_in_processes(calls, shares, listener)


def resolve(params: ParallelParams, n_calls: int) -> Shares:
    """``params`` with this machine's numbers in place of null.

    Raises VersatuneError when the machine has fewer GPUs than one worker needs.
    """
    cores, devices = _cores(), _gpus()
    gpus = params.gpus if params.gpus is not None else min(1, devices)
    if gpus > devices and params.engine == "local":
        raise VersatuneError(
            f"parallel.gpus is {gpus}, and this machine has {devices}: give a smaller number."
        )
    at_once = devices // gpus if gpus else max(1, cores // (params.cpus or 1))
    workers = min(params.workers or at_once, n_calls)
    if gpus and params.engine == "local" and workers > devices // gpus:
        raise VersatuneError(
            f"parallel.workers is {workers} with {gpus} GPUs each, and this machine has {devices}: "
            f"at most {devices // gpus} workers."
        )
    return Shares(workers, params.cpus or max(1, cores // workers), gpus)


def _here(call: Call, listener: OnEvent) -> Any:
    with named(call.name), emitting_to(lambda event: listener(call, event)):
        return call.function(**call.arguments)


@contextlib.contextmanager
def _threads(cpus: int | None) -> Iterator[None]:
    """torch with this many threads within the block; None leaves it as it is."""
    if cpus is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(cpus)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
