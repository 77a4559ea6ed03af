"""What a run was made with: seeds, versions, the command, the commit."""

import contextlib
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from versatune.tracking.secrets import flatten, hide, without_keys

PACKAGES = (
    *("versatune", "torch", "transformers", "datasets", "accelerate", "peft", "lm-eval"),
    *("scikit-learn", "numpy", "pandas", "kedro", "kedro-mlflow", "mlflow", "plotly"),
)
"""The libraries whose versions can change a result or how it is shown."""


def seeds(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Every parameter that is a seed, by its flattened key."""
    return {k: v for k, v in flatten(parameters).items() if re.search(r"(^|[._])seeds?$", k)}


def environment() -> dict[str, str]:
    """Python, platform and the versions of :data:`PACKAGES` that are installed here."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def command() -> str:
    """The command line of this process, with values masked that look like credentials."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    shown = (_GIVEN.sub(lambda given: f"{given[1]}={hide(given[1], given[2])}", w) for w in words)
    return " ".join(shlex.quote(without_keys(word)) for word in shown)


_GIVEN = re.compile(r"(?<![\w.-])(\w[\w.-]*)=([^,]*)")
"""A parameter given on the command line: ``key=value``, several of them divided by commas; not an
option like ``--params=``. A value may hold spaces and further ``=``."""


def git_commit(folder: Path | None = None) -> str | None:
    """The commit of the working tree, with ``+changes`` when it is not clean; None outside git."""
    state = git_state(folder)
    return None if state is None else state[0] + ("+changes" if state[1] else "")


def git_state(folder: Path | None = None) -> tuple[str, bool] | None:
    """The commit of the working tree, and whether it was changed since; None outside git."""
    try:
        commit = _git("rev-parse", "HEAD", folder=folder)
        changed = _git("status", "--porcelain", "--untracked-files=no", folder=folder)
    except (OSError, subprocess.SubprocessError):
        return None
    return commit, bool(changed)


def _git(*arguments: str, folder: Path | None) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()
