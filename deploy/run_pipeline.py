#!/usr/bin/env python3
"""Start a pipeline as a child process; its log and its end become the caller's.

For schedulers, which run in an environment of their own: only the standard library. No shell takes
part, so no value can become a command. When the caller is stopped or the time is over, the child
and all its children are asked to end (SIGTERM: the run is noted as killed and can be gone on
with), and after ``grace`` seconds are made to.

    deploy/run_pipeline.py --pipeline retrain --timeout 21600
"""

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

TIMED_OUT = 124
"""The exit code when the time was over, as the command ``timeout`` has it."""

_NAME = re.compile(r"[A-Za-z_][\w-]*")


def kedro_run(project: Path, pipeline: str, env: str | None = None) -> list[str]:
    """The command that runs ``pipeline`` in ``project``, with the project's own environment.

    ``VERSATUNE_KEDRO`` names another ``kedro``. Raises ValueError on a name that is none.
    """
    for name in (pipeline, env):
        if name is not None and not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a pipeline or an environment")
    kedro = os.environ.get("VERSATUNE_KEDRO", str(project / ".venv" / "bin" / "kedro"))
    return [kedro, "run", "--pipeline", pipeline, *(["--env", env] if env else [])]


def run(
    command: Sequence[str],
    *,
    cwd: Path,
    log: Callable[[str], None],
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    grace: float = 60.0,
) -> int:
    """Run ``command`` in ``cwd``, pass each line it writes to ``log``, return its exit code.

    :data:`TIMED_OUT` after ``timeout`` seconds; 128 + n for a child ended by signal n. Whatever
    is raised while waiting (an interrupt, a scheduler's cancellation) ends the child first.
    """
    quiet = {"TQDM_MININTERVAL": "60", "COLUMNS": "160", "NO_COLOR": "1"}
    child = subprocess.Popen(
        list(command),
        cwd=cwd,
        env={**os.environ, **quiet, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    late = threading.Event()

    def over() -> None:
        late.set()
        stop(child, grace)

    timer = threading.Timer(timeout, over) if timeout else None
    if timer:
        timer.daemon = True
        timer.start()
    try:
        assert child.stdout is not None
        for line in child.stdout:
            if line.strip():
                log(line.rstrip())
        code = child.wait()
    except BaseException:
        stop(child, grace)
        raise
    finally:
        if timer:
            timer.cancel()
    if late.is_set():
        log(f"stopped: not done after {timeout:.0f} seconds")
        return TIMED_OUT
    return code if code >= 0 else 128 - code


def stop(child: "subprocess.Popen[str]", grace: float) -> None:
    """End a child with all its children: asked first, made to after ``grace`` seconds."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(grace)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _terminated(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code is the pipeline's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--project", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--pipeline", default="retrain")
    parser.add_argument("--env", default=None, help="the configuration environment")
    parser.add_argument("--timeout", type=float, default=None, help="seconds")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        command = kedro_run(options.project, options.pipeline, options.env)
        return run(
            command,
            cwd=options.project,
            log=lambda line: print(line, flush=True),  # noqa: T201
            timeout=options.timeout,
        )
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        return 143


if __name__ == "__main__":
    sys.exit(main())
