"""Running the real command line on a copy of the project with tiny settings."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

Kedro = Callable[..., subprocess.CompletedProcess[str]]


def copy_project(root: Path, target: Path) -> Path:
    """What a checkout holds, without what runs left behind."""
    target.mkdir(parents=True)
    shutil.copy(root / "pyproject.toml", target)
    shutil.copytree(root / "conf", target / "conf", ignore=shutil.ignore_patterns("local"))
    (target / "conf" / "local").mkdir()
    shutil.copytree(root / "data" / "01_raw", target / "data" / "01_raw")
    shutil.copytree(root / "src", target / "src", ignore=shutil.ignore_patterns("*.egg-info"))
    return target


def environment() -> dict[str, str]:
    """One thread a process, so that results don't depend on the number of cores, and no MLflow
    store that a test in this process has set."""
    own = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return {**own, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"}


def command(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).parent / "kedro"), "run", *arguments]
