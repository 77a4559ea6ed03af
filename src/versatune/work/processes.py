"""The local engine: a process a slot, used again call after call, replaced when killed.

A new process imports torch and transformers first, which takes longer than a small piece of work.
So a process waits for the next call when its own has ended, for :data:`IDLE` seconds at most. It
is used again only where a new one would be the same: the same cores and devices, working folder,
environment and log level.
"""

import atexit
import contextlib
import gc
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn

from versatune.errors import VersatuneError
from versatune.work import bars
from versatune.work.calls import RETRIES, Call, OnEvent, Shares, emitting_to

logger = logging.getLogger(__name__)

_SPAWN = multiprocessing.get_context("spawn")
"""Not fork: a forked process can't use CUDA, and threads of its parent may hold locks."""

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_STOPPING = 10.0
"""Seconds a process has to end after SIGTERM."""
IDLE = 60.0
"""Seconds a process waits for its next call before it ends and gives its memory back."""


@dataclass(frozen=True)
class _Setup:
    """What a process is started with."""

    cpus: int
    devices: str | None
    """CUDA_VISIBLE_DEVICES; None without GPUs."""
    level: int
    """The log level of this library."""
    folder: str
    environment: dict[str, str]


@dataclass
class _Worker:
    at: int
    """Which call it makes."""
    slot: int
    setup: _Setup
    process: BaseProcess
    pipe: Connection


_idle: dict[int, _Worker] = {}
"""Processes that wait for their next call, by slot."""
os.register_at_fork(after_in_child=_idle.clear)


def run_in_processes(calls: Sequence[Call], shares: Shares, listener: OnEvent) -> list[Any]:
    """The results of ``calls``, in order; see :func:`versatune.work.parallel.side_by_side`."""
    results: list[Any] = [None] * len(calls)
    waiting, tries = deque(range(len(calls))), [0] * len(calls)
    free, workers = list(range(shares.workers))[::-1], dict[Connection, _Worker]()
    with contextlib.ExitStack() as held:
        held.callback(lambda: _stop(list(workers.values())))
        bar = held.enter_context(bars.bar(len(calls), "in parallel", "tasks"))
        while waiting or workers:
            while waiting and free:
                worker = _worker(waiting.popleft(), free.pop(), shares)
                workers[worker.pipe] = worker
            for pipe in wait(list(workers)):
                worker = workers[pipe]  # type: ignore[index]
                call = calls[worker.at]
                try:
                    kind, content = worker.pipe.recv()
                except (EOFError, OSError):
                    kind, content = "killed", None
                if kind == "event":
                    listener(call, content)
                    continue
                if kind == "log":
                    relay(content, call)
                    continue
                if kind == "ready":
                    with contextlib.suppress(BrokenPipeError):  # killed: the next look says so
                        worker.pipe.send(call)
                    continue
                free.append(worker.slot)
                del workers[worker.pipe]
                if kind == "result":
                    results[worker.at] = content
                    bar.update()
                    if worker.setup.devices is not None or worker.slot in _idle:
                        _dismiss([worker])  # it would hold memory of its GPU
                    else:
                        _idle[worker.slot] = worker
                    continue
                if kind == "error":
                    _stop([worker])
                    raise _named(call, *content)
                worker.process.join()
                worker.pipe.close()
                if tries[worker.at] < RETRIES:
                    tries[worker.at] += 1
                    logger.warning(
                        "%s: its process ended with code %s; it continues where it stopped.",
                        call.name,
                        worker.process.exitcode,
                    )
                    waiting.appendleft(worker.at)
                else:
                    raise VersatuneError(
                        f"{call.name}: its process was killed {RETRIES + 1} times, last with code "
                        f"{worker.process.exitcode}. If memory ran out, lower parallel.workers (of "
                        "tokenising: tokenize.num_workers)."
                    )
    return results


def _worker(at: int, slot: int, shares: Shares) -> _Worker:
    """A process for the call ``at``: the one that waits in this slot, or a new one.

    It says when it is ready for the call.
    """
    devices = range(slot * shares.gpus, (slot + 1) * shares.gpus)
    setup = _Setup(
        cpus=shares.cpus,
        devices=_visible(list(devices)),
        level=logging.getLogger("versatune").getEffectiveLevel(),
        folder=str(Path.cwd()),
        environment=dict(os.environ),
    )
    if (waiting := _idle.pop(slot, None)) is not None:
        if waiting.setup == setup and waiting.process.is_alive():
            return replace(waiting, at=at)
        _dismiss([waiting])
    return _start(at, slot, setup)


def _start(at: int, slot: int, setup: _Setup) -> _Worker:
    here, there = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_child, args=(there, setup), name=f"slot {slot}", daemon=True)
    # Read by the libraries of the child while they are imported, so they must be there first.
    # Bars of several processes would overwrite each other.
    given = dict.fromkeys(_THREADS, str(setup.cpus)) | {"TQDM_DISABLE": "1"}
    kept = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        process.start()
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    there.close()
    return _Worker(at, slot, setup, process, here)


@atexit.register
def stop_idle() -> None:
    """End the processes that wait for a call."""
    waiting = list(_idle.values())
    _idle.clear()
    _dismiss(waiting)


def _visible(devices: list[int]) -> str | None:
    """CUDA_VISIBLE_DEVICES of a worker, out of those this process sees; None without GPUs."""
    if not devices:
        return None
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = seen.split(",") if seen else [str(i) for i in range(max(devices) + 1)]
    return ",".join(names[i] for i in devices)


def relay(record: logging.LogRecord, call: Call) -> None:
    """Log a record of another process, if this one's levels let it through."""
    record.msg = f"{call.name}: {record.msg}"
    log = logging.getLogger(record.name)
    if log.isEnabledFor(record.levelno):
        log.handle(record)


def _named(call: Call, error: BaseException, trace: str) -> BaseException:
    if isinstance(error, VersatuneError):
        return VersatuneError(f"{call.name}: {error}")
    error.add_note(f"in {call.name}:\n{trace}")
    return error


def _dismiss(workers: list[_Worker]) -> None:
    """End the processes that wait for work. Each runs to its own end, as any program does."""
    for worker in workers:
        with contextlib.suppress(OSError):  # ended already
            worker.pipe.send(None)
    for worker in workers:
        worker.process.join(_STOPPING)
    _stop(workers)


def _stop(workers: list[_Worker]) -> None:
    """End processes now, whatever they do."""
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        worker.process.join(_STOPPING)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.pipe.close()


class ToParent(QueueHandler):
    """Sends log records through the pipe, formatted, so that their arguments need not pickle."""

    def __init__(self, send: Any) -> None:
        super().__init__(queue=None)  # type: ignore[arg-type]
        self._send = send

    def enqueue(self, record: logging.LogRecord) -> None:
        self._send(("log", record))


def _child(pipe: Connection, setup: _Setup) -> None:
    if setup.devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = setup.devices
    os.environ["DO_NOT_TRACK"] = "true"
    lock = threading.Lock()

    def send(message: Any) -> None:
        with lock:
            pipe.send(message)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops its workers
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    root = logging.getLogger()
    root.handlers = [ToParent(send)]
    logging.getLogger("versatune").setLevel(setup.level)
    import torch  # by now a signal is heeded

    send(("ready", None))
    while pipe.poll(IDLE):
        try:
            call = pipe.recv()
        except EOFError:
            break
        if call is None:
            break
        try:
            # For torch too: another library that was first to load OpenMP may have settled it.
            torch.set_num_threads(setup.cpus)
            with emitting_to(lambda event: send(("event", event))):
                result = call.function(**call.arguments)
        except Exception as error:
            send(("error", (_portable(error), traceback.format_exc())))
        else:
            send(("result", result))
        del call  # with the models it holds, before the next one loads its own
        gc.collect()
        send(("ready", None))
    pipe.close()


def _leave(*_: Any) -> NoReturn:
    sys.exit(143)


def _end_with_parent() -> None:
    """A parent that is killed can't stop its workers: they notice that it is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _portable(error: Exception) -> Exception:
    """``error`` without what does not pickle: its cause, and itself if it can't."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
