"""A real MLflow tracking server on loopback."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Self


class TrackingServer:
    """Serves tracking, registry and artifacts from a folder, at the same address each time."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        if self._process is not None:
            return
        self._folder.mkdir(exist_ok=True)
        words = ["--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"]
        words += ["--backend-store-uri", f"sqlite:///{self._folder}/mlflow.db"]
        words += ["--artifacts-destination", str(self._folder / "artifacts")]
        with (self._folder.parent / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *words],
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for(self._answers, "the tracking server answers", self._process)

    @property
    def group(self) -> int:
        """The process group of the server and its workers."""
        assert self._process is not None
        return self._process.pid

    def was_killed(self) -> bool:
        """Wait until something else ends it; whether that was a signal."""
        assert self._process is not None
        return self._process.wait(60) < 0

    def stop(self) -> None:
        """End it with its workers."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def wait_for(
    condition: Callable[[], bool],
    what: str,
    child: "subprocess.Popen[bytes]",
    seconds: float = 300.0,
) -> None:
    """Wait until ``condition`` holds, while ``child`` lives and for no longer than ``seconds``."""
    late = time.monotonic() + seconds
    while not condition():
        assert child.poll() is None, f"the process ended before {what}"
        assert time.monotonic() < late, f"{seconds} seconds without: {what}"
        time.sleep(0.01)
