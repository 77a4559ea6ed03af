"""Commands that share a time: each in processes of its own, ended when its part is used up."""

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LEAST = 10.0
"""Seconds below which nothing more is begun."""


@dataclass
class Budget:
    """Runs commands one after another within ``seconds``, whatever becomes of each."""

    seconds: float
    root: Path
    """Where commands run."""
    stretch: float = 1.0
    """Times the limit of each command: on a machine that others use, all takes longer."""
    began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds."""
        return self.began + self.seconds - time.monotonic()

    def run(self, command: list[str], limit: float, folder: Path | None = None) -> dict[str, Any]:
        """What the command said: ``output`` and its ``seconds``, and ``error`` when it failed.

        It gets ``limit`` seconds times :attr:`stretch`, or what is left; then it and all that it
        started are killed. It runs in ``folder``, or the root.
        """
        if self.left < LEAST:
            return {"error": "no time left", "seconds": 0.0}
        limit *= self.stretch
        given = min(limit, self.left)
        started = time.monotonic()
        child = subprocess.Popen(
            command,
            cwd=folder or self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            output, errors = child.communicate(timeout=given)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            output, _ = child.communicate()
            short = "no time left: ended after" if given < limit else "took more than"
            return {"error": f"{short} {given:.0f} s", "seconds": given, "output": output}
        done = {"output": output, "seconds": time.monotonic() - started}
        if child.returncode:
            said = (errors.strip() or output.strip() or f"exit {child.returncode}").splitlines()
            return {**done, "error": said[-1][:300]}
        return done

    def numbers(self, command: list[str], limit: float) -> dict[str, Any]:
        """The JSON object in the last line of what the command wrote, or ``error``."""
        done = self.run(command, limit)
        if "error" in done:
            return {key: done[key] for key in ("error", "seconds")}
        last = (done["output"].strip().splitlines() or [""])[-1]
        try:
            found = json.loads(last)
        except ValueError:
            found = {"error": f"no numbers: {last[:200] or 'no output'}"}
        return {**found, "seconds": done["seconds"]}
