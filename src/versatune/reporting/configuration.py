"""What a run was made with: parameters without secrets, versions, the commit."""

import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    *("versatune", "torch", "transformers", "datasets", "accelerate", "peft", "lm-eval"),
    *("scikit-learn", "numpy", "pandas", "kedro", "kedro-mlflow", "mlflow", "plotly"),
)
"""The libraries whose versions can change a result or how it is shown."""

MASK = "••••••"

_SECRET_KEY = re.compile(
    r"(^|[_.-])(api_?key|key|secret|token|password|passwd|pwd|credentials?|bearer|authorization)$",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(
    r"\b(sk-|hf_|gh[pousr]_|github_pat_|glpat-|xox[abp]-|AKIA|Bearer\s)[A-Za-z0-9_\-]{8,}"
)
_URL_PASSWORD = re.compile(r"(?<=://)[^/@\s]+@")


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as ``{"a.b": value}``; an empty mapping or list stays a value."""
    if isinstance(value, Mapping) and value:
        found: dict[str, Any] = {}
        for key, item in value.items():
            found |= flat(item, f"{prefix}.{key}" if prefix else str(key))
        return found
    return {prefix: value}


def masked(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Flattened parameters as text, with everything that looks like a credential masked.

    Masked are values whose key ends in a word such as ``token`` or ``password`` (at any level),
    values that look like the common kinds of access keys, and passwords inside URLs.
    """
    return {key: hide(key, _text(value)) for key, value in flat(parameters).items()}


def hide(key: str, text: str) -> str:
    """The value of one parameter, masked where its key or itself looks like a credential."""
    secret = text and any(_SECRET_KEY.search(part) for part in key.split("."))
    return MASK if secret else _without_keys(text)


def _without_keys(text: str) -> str:
    return _URL_PASSWORD.sub(MASK + "@", _SECRET_VALUE.sub(MASK, text))


def seeds(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Every parameter that is a seed, by its flattened key."""
    return {k: v for k, v in flat(parameters).items() if re.search(r"(^|[._])seeds?$", k)}


def environment() -> dict[str, str]:
    """Python, platform and the versions of :data:`PACKAGES` that are installed here."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def command() -> str:
    """The command line of this process, with what looks like a credential masked."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    shown = (_GIVEN.sub(lambda given: f"{given[1]}={hide(given[1], given[2])}", w) for w in words)
    return " ".join(shlex.quote(_without_keys(word)) for word in shown)


_GIVEN = re.compile(r"(?<![\w.-])(\w[\w.-]*)=([^,]*)")
"""A parameter given on the command line: ``key=value``, several of them divided by commas; not an
option like ``--params=``. A value may hold spaces and further ``=``."""


def git_commit(folder: Path | None = None) -> str | None:
    """The commit of the working tree, with ``+changes`` when it is not clean; None outside git."""
    try:
        commit = _git("rev-parse", "HEAD", folder=folder)
        changed = _git("status", "--porcelain", "--untracked-files=no", folder=folder)
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+changes" if changed else "")


def _git(*arguments: str, folder: Path | None) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_text(v) for v in value)
    if isinstance(value, Mapping) and value:
        return "; ".join(f"{k}: {v}" for k, v in masked(value).items())
    return "" if value is None or value == {} else str(value)
