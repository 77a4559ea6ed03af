"""The local engine: a process a call, so many at a time, replaced when killed."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn

from versatune.errors import VersatuneError
from versatune.work.parallel import RETRIES, Call, OnEvent, Shares, emitting_to

logger = logging.getLogger(__name__)

_SPAWN = multiprocessing.get_context("spawn")
"""Not fork: a forked process can't use CUDA, and threads of its parent may hold locks."""

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_STOPPING = 10.0
"""Seconds a process has to end after SIGTERM."""


@dataclass
class _Worker:
    at: int
    """Which call it makes."""
    slot: int
    process: BaseProcess
    pipe: Connection


def run_in_processes(calls: Sequence[Call], shares: Shares, listener: OnEvent) -> list[Any]:
    """The results of ``calls``, in order; see :func:`versatune.work.parallel.side_by_side`."""
    results: list[Any] = [None] * len(calls)
    waiting, tries = deque(range(len(calls))), [0] * len(calls)
    free, workers = list(range(shares.workers))[::-1], dict[Connection, _Worker]()
    try:
        while waiting or workers:
            while waiting and free:
                worker = _start(calls, waiting.popleft(), free.pop(), shares)
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
                worker.process.join()
                free.append(worker.slot)
                del workers[worker.pipe]
                worker.pipe.close()
                if kind == "result":
                    results[worker.at] = content
                elif kind == "error":
                    raise _named(call, *content)
                elif tries[worker.at] < RETRIES:
                    tries[worker.at] += 1
                    logger.warning(
                        "%s: its process ended with code %s; it goes on where it was.",
                        call.name,
                        worker.process.exitcode,
                    )
                    waiting.appendleft(worker.at)
                else:
                    raise VersatuneError(
                        f"{call.name}: its process was killed {RETRIES + 1} times, last with code "
                        f"{worker.process.exitcode}. If memory ran out, lower parallel.workers."
                    )
    finally:
        _stop(list(workers.values()))
    return results


def _start(calls: Sequence[Call], at: int, slot: int, shares: Shares) -> _Worker:
    here, there = _SPAWN.Pipe()
    devices = range(slot * shares.gpus, (slot + 1) * shares.gpus)
    level = logging.getLogger("versatune").getEffectiveLevel()
    process = _SPAWN.Process(
        target=_child,
        args=(there, calls[at], shares.cpus, _visible(list(devices)), level),
        name=calls[at].name,
        daemon=True,
    )
    # Read by the libraries of the child while they are imported, so they must be there first.
    # Bars of several processes would overwrite each other.
    given = dict.fromkeys(_THREADS, str(shares.cpus)) | {"TQDM_DISABLE": "1"}
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
    return _Worker(at, slot, process, here)


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


def _stop(workers: list[_Worker]) -> None:
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


def _child(pipe: Connection, call: Call, cpus: int, devices: str | None, level: int) -> None:
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices
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
    logging.getLogger("versatune").setLevel(level)
    try:
        _limit_threads(cpus)
        with emitting_to(lambda event: send(("event", event))):
            result = call.function(**call.arguments)
    except Exception as error:
        send(("error", (_portable(error), traceback.format_exc())))
    else:
        send(("result", result))
    pipe.close()


def _leave(*_: Any) -> NoReturn:
    sys.exit(143)


def _end_with_parent() -> None:
    """A parent that is killed can't stop its workers: they notice that it is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _limit_threads(cpus: int) -> None:
    import torch

    torch.set_num_threads(cpus)


def _portable(error: Exception) -> Exception:
    """``error`` without what does not pickle: its cause, and itself if it can't."""
    import pickle

    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
