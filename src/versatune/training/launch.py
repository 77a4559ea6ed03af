"""Training in several processes: a child of the launcher, watched by this one.

The child is `torch.distributed.run` (data parallelism) or `accelerate launch` with its
configuration file (FSDP, DeepSpeed, several nodes), each process of which runs
`python -m versatune.training JOB.json`. This process passes on their logs and measurements.
They end with it: they hold the other end of a pipe and stop when it closes.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from versatune.artifacts import write_json
from versatune.errors import VersatuneError
from versatune.training.config import LauncherParams
from versatune.training.job import EVENTS, FAILURE, STEPS, Event, Job, OnRound, OnStep

logger = logging.getLogger(__name__)

JOB = "job.json"


def launch(job: Job, on_round: OnRound | None = None, on_step: OnStep | None = None) -> None:
    """Run ``job`` in as many processes as it asks for; returns when all have succeeded.

    Raises VersatuneError with the first process's own message, or the end of what the child
    wrote when it died without one.
    """
    for name in (EVENTS, STEPS, FAILURE):
        (job.folder / name).unlink(missing_ok=True)
    path = job.folder / JOB
    write_json(path, job)
    child = subprocess.Popen(
        command(job.params.launcher, path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=_environment(job.params.launcher),
        start_new_session=True,
    )
    assert child.stdout is not None
    tail: deque[str] = deque(maxlen=20)
    reader = threading.Thread(target=_pass_on, args=(child.stdout, tail), daemon=True)
    reader.start()
    events, steps = _follow(job.folder / EVENTS), _follow(job.folder / STEPS)
    try:
        while child.poll() is None:
            _tell(events, on_round)
            _tell(steps, on_step)
            time.sleep(0.2)
    finally:
        _end(child)
        reader.join(timeout=5)
    _tell(events, on_round)
    _tell(steps, on_step)
    if child.returncode:
        failure = job.folder / FAILURE
        if failure.is_file():
            raise VersatuneError(failure.read_text(encoding="utf-8"))
        raise VersatuneError(
            f"the training processes ended with code {child.returncode}: {''.join(tail)}"
        )
    path.unlink()


def command(launcher: LauncherParams, job: Path) -> list[str]:
    """How the processes are started."""
    if launcher.config_file is not None:
        start = ["accelerate.commands.launch", "--config_file", str(launcher.config_file)]
    else:
        start = ["torch.distributed.run", "--standalone"]
        start += ["--nproc_per_node", str(launcher.processes)]
    return [sys.executable, "-m", *start, "-m", "versatune.training", str(job), "--watched"]


def _environment(launcher: LauncherParams) -> dict[str, str]:
    """This process's, with the cores divided over the processes unless it says otherwise.

    `accelerate launch` knows from its configuration how many there are, and divides them.
    """
    if launcher.config_file is not None:
        return dict(os.environ)
    threads = max(1, (os.cpu_count() or 1) // launcher.processes)
    return {"OMP_NUM_THREADS": str(threads), **os.environ}


def _pass_on(lines: IO[str], tail: deque[str]) -> None:
    for line in lines:
        tail.append(line)
        logger.info("%s", line.rstrip())


def _follow(path: Path) -> Iterator[str | None]:
    """Lines of a growing file as they are finished; None when there is none just now."""
    at = 0
    while True:
        text = path.read_bytes()[at:] if path.is_file() else b""
        end = text.rfind(b"\n") + 1
        yield from text[:end].decode().split("\n")[:-1]
        at += end
        yield None


def _tell(events: Iterator[str | None], listener: Callable[[Event], None] | None) -> None:
    for line in iter(events.__next__, None):
        if listener is not None:
            listener(json.loads(line))


def _end(child: "subprocess.Popen[str]") -> None:
    """Stop what still runs: SIGTERM first, SIGKILL after ten seconds."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    if child.stdin is not None:
        child.stdin.close()
