"""The Ray engine: the calls as Ray tasks, over this machine or a cluster.

Files are the results' home as with local processes, so all machines must see the same paths. What
a task emits and logs comes back through one actor.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from versatune.errors import VersatuneError
from versatune.work.calls import RETRIES, Call, OnEvent, ParallelParams, emitting_to
from versatune.work.processes import ToParent, relay

_POLL = 0.2
"""Seconds between looks at what the tasks have emitted."""


class Mailbox:
    """The actor that tasks send messages to; a message is (call, kind, content)."""

    def __init__(self) -> None:
        self._messages: list[tuple[int, str, Any]] = []

    def put(self, at: int, kind: str, content: Any) -> None:
        self._messages.append((at, kind, content))

    def take(self) -> list[tuple[int, str, Any]]:
        taken, self._messages = self._messages, []
        return taken


def run_on_ray(calls: Sequence[Call], params: ParallelParams, listener: OnEvent) -> list[Any]:
    """The results of ``calls``, in order; see :func:`versatune.work.parallel.side_by_side`.

    Joins the cluster of RAY_ADDRESS, or starts Ray on this machine for the time of the calls.
    Raises VersatuneError when Ray is not installed or not to be reached.
    """
    try:
        import ray
    except ImportError:
        raise VersatuneError(
            "parallel.engine is ray, and Ray is not installed: pip install 'versatune[ray]'."
        ) from None

    with _connected(ray):
        resources = ray.cluster_resources()
        gpus = params.gpus if params.gpus is not None else min(1, int(resources.get("GPU", 0)))
        cpus = params.cpus or max(1, int(resources["CPU"] // (params.workers or resources["CPU"])))
        _refuse_too_large(ray, cpus, gpus)
        mailbox: Any = ray.remote(num_cpus=0)(Mailbox).remote()
        # One thread pool a task: Ray sets OMP_NUM_THREADS to num_cpus in its workers.
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(_task)
        waiting, running = list(enumerate(calls))[::-1], dict[Any, int]()
        at_once = params.workers or len(calls)
        results: list[Any] = [None] * len(calls)
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    at, call = waiting.pop()
                    level = logging.getLogger("versatune").getEffectiveLevel()
                    running[task.remote(mailbox, at, call, cpus, level)] = at
                ended, _ = ray.wait(list(running), timeout=_POLL)
                _tell(ray.get(mailbox.take.remote()), calls, listener)
                for ref in ended:
                    at = running.pop(ref)
                    results[at] = _result(ray, ref, calls[at])
        finally:
            for ref in running:
                ray.cancel(ref, force=True)
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(mailbox)
    return results


@contextlib.contextmanager
def _connected(ray: Any) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = os.environ.get("RAY_ADDRESS")
    try:
        ray.init(
            address=address,
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.WARNING,
            **({} if address else {"_node_ip_address": "127.0.0.1"}),
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise VersatuneError(f"Ray at {address or 'this machine'}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _refuse_too_large(ray: Any, cpus: int, gpus: int) -> None:
    """Ray waits for ever for a node that is large enough; say so instead."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(n.get("CPU", 0) >= cpus and n.get("GPU", 0) >= gpus for n in nodes):
        largest = max((n.get("CPU", 0) for n in nodes), default=0)
        raise VersatuneError(
            f"a piece needs {cpus} cores and {gpus} GPUs (parallel.cpus, parallel.gpus), and no "
            f"machine of the Ray cluster has them; the largest has {largest:g} cores."
        )


def _tell(messages: list[tuple[int, str, Any]], calls: Sequence[Call], listener: OnEvent) -> None:
    for at, kind, content in messages:
        if kind == "event":
            listener(calls[at], content)
        else:
            relay(content, calls[at])


def _result(ray: Any, ref: Any, call: Call) -> Any:
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, VersatuneError):
            raise VersatuneError(f"{call.name}: {cause}") from None
        raise
    except ray.exceptions.RayError as error:
        raise VersatuneError(
            f"{call.name}: its process was lost {RETRIES + 1} times: {error}. If memory ran out, "
            "lower parallel.workers (of tokenising: tokenize.num_workers)."
        ) from error


def _task(mailbox: Any, at: int, call: Call, cpus: int, level: int) -> Any:
    import ray
    import torch

    torch.set_num_threads(cpus)
    lock = threading.Lock()

    def send(message: tuple[str, Any]) -> None:
        with lock:
            ray.get(mailbox.put.remote(at, *message))

    root, own = logging.getLogger(), logging.getLogger("versatune")
    root.handlers = [ToParent(send)]
    own.setLevel(level)
    with emitting_to(lambda event: send(("event", event))):
        return call.function(**call.arguments)
