"""``kedro run`` in forks of a process that has imported everything, with a fault at a moment.

A moment is the n-th time the run opens a file for writing, or renames one, whose path matches.
Files that libraries write without Python are reached through the limit on a file's size: the
process dies, or gets an error, inside the write itself.
"""

import gc
import multiprocessing
import os
import re
import resource
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

IMPORTS = [
    "IPython",
    "git",
    "openai.resources",
    "kedro_datasets.json",
    "kedro_mlflow.framework.cli.cli",
    "kedro_telemetry.plugin",
    "kedro_viz.integrations.kedro.hooks",
    "kedro_viz.launchers.cli.main",
    "lm_eval.evaluator",
    "mlflow.openai",
    "mlflow.pyfunc.scoring_server",
    "mlflow.sklearn",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "opentelemetry.sdk.metrics",
    "plotly.graph_objs",
    "sklearn.feature_extraction.text",
    "transformers.pipelines",
    "versatune.cli",
    "versatune.training.run",
    "versatune.evaluation.harness",
    "versatune.probing.probe",
    "versatune.samplers.decoding",
    "transformers.models.llama.modeling_llama",
    "lm_eval.models.huggingface",
    "sklearn.linear_model",
    "mlflow.transformers",
    "kedro_mlflow.framework.hooks",
    "kedro_datasets.pandas",
    "kedro_datasets.plotly",
]


@dataclass(frozen=True)
class Fault:
    """What happens when the run writes to a path that ``moment`` (a pattern) is found in.

    ``kill``: SIGKILL before the write. ``cut``: it dies inside the next write beyond ``size``
    bytes of a file. ``full``: from here on the disk takes no more (``ballast`` fills it; without
    one, no file may grow beyond ``size`` bytes). ``lock``: another process holds the MLflow
    database until the file ``ballast`` is there. ``end``: the processes of ``group`` are killed.
    ``once`` (a file) lists the kinds of paths at which it has happened: never twice at one.
    """

    moment: str
    action: Literal["kill", "cut", "full", "lock", "end"] = "kill"
    count: int = 1
    size: int = 50
    ballast: Path | None = None
    group: int = 0
    once: Path | None = None


@dataclass(frozen=True)
class Done:
    """How a run ended: its exit code, negative for a signal, and all it printed."""

    code: int
    output: str

    @property
    def error(self) -> str:
        """The message for a person."""
        return self.output[self.output.rfind("Error: ") :]


_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(IMPORTS)


def kedro_run(
    project: Path,
    *arguments: str,
    fault: Fault | None = None,
    environment: Mapping[str, str] | None = None,
) -> Done:
    """Run ``kedro run`` with these arguments in a process of its own and wait for its end."""
    ours, theirs = _context.Pipe()
    process = _context.Process(
        target=_run, args=(theirs, project, arguments, dict(environment or {}), fault)
    )
    process.start()
    theirs.close()
    printed: list[bytes] = []
    reader = threading.Thread(target=_read, args=(ours, printed))
    reader.start()
    process.join(timeout=300)
    if process.is_alive():
        process.kill()
        process.join()
    reader.join()
    ours.close()
    assert process.exitcode is not None
    return Done(process.exitcode, b"".join(printed).decode(errors="replace"))


def _read(connection: Connection, printed: list[bytes]) -> None:
    while True:
        try:
            part = os.read(connection.fileno(), 65536)
        except ConnectionResetError:
            return
        if not part:
            return
        printed.append(part)


def _run(
    connection: Connection,
    project: Path,
    arguments: tuple[str, ...],
    environment: Mapping[str, str],
    fault: Fault | None,
) -> None:
    import torch
    from kedro.framework.cli.cli import main

    gc.freeze()  # trainings collect garbage: what was imported is none
    os.chdir(project)
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # mlflow.set_tracking_uri in a test leaves it
    os.environ.update({"COLUMNS": "200", "NO_COLOR": "1", **environment})
    os.dup2(connection.fileno(), 1)
    os.dup2(connection.fileno(), 2)
    connection.close()
    torch.set_num_threads(1)
    sys.argv = ["kedro", "run", *arguments]
    if fault is not None:
        sys.addaudithook(_Trap(fault))
    main()


class _Trap:
    """An audit hook that lets the fault happen."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self._left = fault.count
        self._kinds: set[str] = set()
        self._list = -1
        if fault.once is not None:
            self._kinds.update(fault.once.read_text().splitlines())
            self._list = os.open(fault.once, os.O_WRONLY | os.O_APPEND)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path = args[0] if args[2] & (os.O_WRONLY | os.O_RDWR) else None
        elif event == "os.rename":
            path = args[1]
        else:
            return
        if (
            self._left
            and path is not None
            and re.search(self._fault.moment, str(path))
            and self._is_new(kind(event, str(path)))
        ):
            self._left -= 1
            if not self._left:
                self._happen()

    def _is_new(self, kind: str) -> bool:
        if kind in self._kinds:
            return False
        if self._list >= 0:
            os.write(self._list, f"{kind}\n".encode())
        return True

    def _happen(self) -> None:
        if self._fault.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self._fault.action == "end":
            os.killpg(self._fault.group, signal.SIGKILL)
        elif self._fault.action == "lock":
            _lock(Path("mlflow.db"), self._fault.ballast)
        elif self._fault.ballast is not None:
            _fill(self._fault.ballast)
        else:
            deadly = self._fault.action == "cut"
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL if deadly else signal.SIG_IGN)
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (self._fault.size, hard))


def kind(event: str, path: str) -> str:
    """What is done to which kind of file: numbers, digests and domains are taken out."""
    short = re.sub(r"[0-9a-f]{16}|\d+", "N", re.sub(r"^.*data/test/", "", path))
    return f"{event} {re.sub('law|medicine|finance|science|code|other', 'D', short)}"


def _fill(ballast: Path) -> None:
    """Write until the disk takes no more."""
    with ballast.open("wb", buffering=0) as file:
        for size in (2**16, 2**12, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue


def _lock(database: Path, until: Path | None) -> None:
    """Fork a process that holds the database until a file is there; returns when it does."""
    run, (ready, done) = os.getpid(), os.pipe()
    if os.fork():
        os.read(ready, 1)
        return
    store = sqlite3.connect(database, isolation_level=None, timeout=60)
    store.execute("BEGIN EXCLUSIVE")
    os.write(done, b"!")
    while os.getppid() == run and not (until and until.exists()):
        time.sleep(0.02)
    os._exit(0)
