"""Create a project with configuration and sample data.

``conf``, ``samples`` and ``accelerate`` are links to the checkout's own folders; a wheel holds
copies of them.
"""

import shutil
from collections.abc import Collection
from pathlib import Path

from versatune.errors import VersatuneError

HERE = Path(__file__).parent


def refuse_existing(folder: Path, beside: Collection[str] = ()) -> None:
    """Raise VersatuneError when ``folder`` holds something else than ``beside``."""
    try:
        taken = folder.exists() and any(e.name not in beside for e in folder.iterdir())
    except OSError as error:
        raise VersatuneError(f"{folder} can't be written ({error.strerror}).") from error
    if taken:
        raise VersatuneError(f"{folder} is not empty; name a new folder.")


def write_project(folder: Path, beside: Collection[str] = ()) -> None:
    """Make ``folder`` a Kedro project that runs the installed package.

    ``beside``: names that may be in the folder already. Raises VersatuneError when it holds
    something else, or can't be written.
    """
    refuse_existing(folder, beside)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / "pyproject.toml", folder)
        shutil.copytree(HERE / "conf", folder / "conf", ignore=shutil.ignore_patterns("local"))
        (folder / "conf" / "local").mkdir()
        shutil.copytree(HERE / "samples", folder / "data" / "01_raw" / "samples")
        shutil.copytree(HERE / "accelerate", folder / "deploy" / "accelerate")
    except OSError as error:
        raise VersatuneError(f"{folder} can't be written ({error.strerror}).") from error
