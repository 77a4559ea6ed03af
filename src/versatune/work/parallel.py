"""Independent calls side by side: local processes, or Ray over the machines of a cluster.

A call is a function and its arguments. What it makes lies in files, so a call that is cut off and
made again goes on where it was. Results come back in the order of the calls, whatever order they
ended in, and how many run at once does not change them: each call gets its own number of threads.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from versatune.errors import VersatuneError
from versatune.params import Params

logger = logging.getLogger(__name__)

RETRIES = 2
"""How often a call is made again when its process was killed."""


class ParallelParams(Params):
    """How independent pieces of work (references, comparison runs) share the hardware."""

    engine: Literal["local", "ray"] = "local"
    """`local` starts processes on this machine. `ray` (extra `ray`) spreads the pieces over the
    cluster named by RAY_ADDRESS, or this machine without one; data and models must lie on a file
    system that all machines share."""
    workers: int | None = Field(None, ge=1)
    """Pieces at work at a time. null: as many as there are GPUs, or one a CPU core. With 1 the
    pieces run one after the other in the process of the pipeline."""
    cpus: int | None = Field(None, ge=1)
    """Cores, and so threads, of each piece. null: the machine's cores divided by `workers`.
    Another number of threads changes the last digits of results."""
    gpus: int | None = Field(None, ge=0)
    """GPUs of each piece. null: one where there are GPUs."""


@dataclass(frozen=True)
class Call:
    """One independent piece: ``function(**arguments)``, made in a process of its own.

    The function must be importable by its module's name and everything must pass pickle.
    """

    name: str
    """What log lines and errors call it: ``law``, ``foster, seed 3``."""
    function: Callable[..., Any]
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Shares:
    """What each worker gets: a resolved :class:`ParallelParams`."""

    workers: int
    cpus: int
    gpus: int


OnEvent = Callable[[Call, Any], None]
"""Receives what a call passes to :func:`emit`, in the process that made the calls."""

_receiver: ContextVar[Callable[[Any], None] | None] = ContextVar("receiver", default=None)


def emit(event: Any) -> None:
    """Pass ``event`` (anything that pickles) to whoever made this call; outside a call nobody."""
    if (receiver := _receiver.get()) is not None:
        receiver(event)


@contextlib.contextmanager
def emitting_to(receiver: Callable[[Any], None]) -> Iterator[None]:
    """Within the block, :func:`emit` calls ``receiver``."""
    token = _receiver.set(receiver)
    try:
        yield
    finally:
        _receiver.reset(token)


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
        from versatune.work.ray_engine import run_on_ray

        return run_on_ray(calls, params, listener)
    if shares.workers == 1:
        with _threads(params.cpus):
            return [_here(call, listener) for call in calls]
    from versatune.work.processes import run_in_processes

    logger.info(
        "%d pieces, %d at a time, with %d core%s%s each",
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
    with emitting_to(lambda event: listener(call, event)):
        return call.function(**call.arguments)


@contextlib.contextmanager
def _threads(cpus: int | None) -> Iterator[None]:
    """torch with so many threads within the block; None leaves it as it is."""
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
