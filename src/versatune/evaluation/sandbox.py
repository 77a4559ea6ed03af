"""Run an untrusted program in a sandbox, or refuse to: the part outside the sandbox.

A program gets new process, mount, network, IPC and user namespaces (Linux): it sees no file of the
machine but Python's standard library, read-only; no network; no other process. Its folder is empty
and lies in memory. Processes, memory, time, files are limited, and whatever it started dies with
it. If the kernel does not provide all of this, programs are not run: there is no weaker mode.

What it does not defend against: faults of the kernel itself, and a program that searches its
own interpreter for the word that marks a pass.
"""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from versatune.errors import VersatuneError
from versatune.evaluation.config import SandboxLimits

SYSTEM_LIBRARIES = ("/usr/lib", "/usr/lib64", "/lib", "/lib64")

GRACE_SECONDS = 20.0
"""Seconds that the jail may take beyond the program's time before it is killed from outside."""


@dataclass(frozen=True)
class ProgramResult:
    """How a program ended."""

    passed: bool
    """It ended without an exception, within the limits."""
    reason: str
    """``passed``, or in a few words why not."""


def run_program(program: str, limits: SandboxLimits) -> ProgramResult:
    """Run ``program`` (Python source) isolated, to its end or to a limit.

    Raises VersatuneError, and does not run it, where this machine can't isolate it.
    """
    result = _run(program, limits)
    if "refused" in result:
        raise VersatuneError(_advice(result["refused"]))
    return _verdict(result, limits)


def check_isolation() -> None:
    """Raise VersatuneError, with the kernel's words and what to do, where programs can't be run."""
    if reason := refusal():
        raise VersatuneError(_advice(reason))


@cache
def refusal() -> str | None:
    """Why this machine can't isolate a program, or None when it can (tried once, really)."""
    if sys.platform != "linux":
        return f"namespaces are Linux's, this is {sys.platform}"
    reason = _run("pass", SandboxLimits()).get("refused")
    return str(reason) if reason else None


def _advice(reason: str) -> str:
    return (
        "programs written by the model are run only fully isolated, and this machine does not "
        f"allow that ({reason}). Run as an ordinary user where user namespaces are allowed, or "
        "as root with CAP_SYS_ADMIN (docker: --cap-add SYS_ADMIN --security-opt "
        "seccomp=unconfined), Linux 5.12 or newer; or set evaluate.code.run: false."
    )


def _run(program: str, limits: SandboxLimits) -> dict[str, Any]:
    spec = {
        "program": program,
        "limits": limits.model_dump(),
        "libraries": _libraries(),
        "word": secrets.token_hex(16),
    }
    jail = Path(__file__).with_name("_jail.py")
    with subprocess.Popen(
        [Path(sys.executable).resolve(), "-I", "-S", jail],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={},
        cwd="/",
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(
                json.dumps(spec).encode(), timeout=limits.wall_seconds + GRACE_SECONDS
            )
        except subprocess.TimeoutExpired:
            return {"timeout": True}
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    try:
        result: dict[str, Any] = json.loads(out)
    except ValueError:
        said = err.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return {"refused": said or f"the sandbox ended with status {process.returncode}"}
    return result


def _libraries() -> list[str]:
    """Folders with the standard library and the shared libraries its modules need."""
    own = str(Path(os.__file__).resolve().parents[1])
    return [*SYSTEM_LIBRARIES, *([] if own.startswith(SYSTEM_LIBRARIES) else [own])]


def _verdict(result: dict[str, Any], limits: SandboxLimits) -> ProgramResult:
    if result.get("timeout"):
        return ProgramResult(False, f"still running after {limits.wall_seconds:g} s")
    if "signal" in result:
        number = result["signal"]
        if number == signal.SIGXCPU:
            return ProgramResult(False, f"used more than {limits.cpu_seconds} s of processor time")
        return ProgramResult(False, f"killed by signal {signal.Signals(number).name}")
    if result["passed"]:
        return ProgramResult(True, "passed")
    return ProgramResult(False, result["said"].rpartition("\n")[2][:200] or "left before its end")
