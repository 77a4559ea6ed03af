"""A call that may be made in another process: what it is, and what it reports meanwhile."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from versatune.params import Params

RETRIES = 2
"""How often a call is made again when its process was killed."""


class ParallelParams(Params):
    """How independent tasks (reference runs, comparison runs) share the hardware."""

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
    """One independent piece: ``function(**arguments)``, made in its own process.

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
_name: ContextVar[str] = ContextVar("name", default="")


def within_call() -> bool:
    """Whether this call runs beside others."""
    return _receiver.get() is not None


def prefix() -> str:
    """What begins a log line of a call; nothing where the lines of a process get it anyway."""
    return f"{_name.get()}: " if _name.get() else ""


@contextlib.contextmanager
def named(name: str) -> Iterator[None]:
    """Within the block, :func:`prefix` begins with ``name``."""
    token = _name.set(name)
    try:
        yield
    finally:
        _name.reset(token)


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
