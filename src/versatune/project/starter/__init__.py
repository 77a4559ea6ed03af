"""What a project of one's own begins with: the configuration and the embedded facts.

``conf``, ``samples`` and ``accelerate`` are links to the checkout's own folders; a wheel holds
copies of them.
"""

import shutil
from pathlib import Path

from versatune.errors import VersatuneError

HERE = Path(__file__).parent


def write_project(folder: Path) -> None:
    """Make ``folder`` a Kedro project that runs the installed package.

    Raises VersatuneError when the folder holds something, or can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise VersatuneError(f"{folder} is not empty; name a new folder.")
        shutil.copy(HERE / "pyproject.toml", folder)
        shutil.copytree(HERE / "conf", folder / "conf", ignore=shutil.ignore_patterns("local"))
        (folder / "conf" / "local").mkdir()
        shutil.copytree(HERE / "samples", folder / "data" / "01_raw" / "samples")
        shutil.copytree(HERE / "accelerate", folder / "deploy" / "accelerate")
    except OSError as error:
        raise VersatuneError(f"{folder} can't be written ({error.strerror}).") from error
