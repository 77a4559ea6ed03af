"""Run a program so that it ends with all that it started: ``family.py PROGRAM ARGUMENTS``.

Dagster's page and daemon end when ``dagster dev`` is told to, but its code server lets a job that
is at work go on without them. Here SIGTERM or Ctrl-C goes to every process of the group; a job
passes it to its pipeline, which ends as killed and can be gone on with.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time

GRACE = 90.0
"""Seconds until what is left is made to end; more than a job gives its pipeline."""


def main() -> int:
    """Start the program in a group of its own and wait for all of it."""
    # A shell makes its background jobs ignore SIGINT, and Dagster would ignore SIGTERM with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    program = subprocess.Popen(sys.argv[1:], start_new_session=True)

    def end(*_: object) -> None:
        _tell(program.pid, signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup asks to outlive the terminal
        signal.signal(signal.SIGHUP, end)
    code = program.wait()
    end()  # also when it ended by itself
    late = time.monotonic() + GRACE
    while _tell(program.pid, 0) and time.monotonic() < late:
        time.sleep(0.2)
    _tell(program.pid, signal.SIGKILL)
    return code if code >= 0 else 128 - code


def _tell(group: int, number: int) -> bool:
    """Send a signal to a group (0 only asks); False when nothing is left of it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
