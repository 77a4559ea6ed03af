"""``python -m versatune``, and the command ``versatune``: Kedro's commands without a checkout."""

import os
from pathlib import Path

from versatune.project.starter import HERE

if not Path("conf/logging.yml").is_file():  # outside a project, where Kedro would use its own
    os.environ.setdefault("KEDRO_LOGGING_CONFIG", str(HERE / "conf" / "logging.yml"))

from kedro.framework.project import configure_project

from versatune.cli import cli


def main() -> None:
    """The commands of :mod:`versatune.cli`, for a project that has the package installed."""
    configure_project("versatune")
    cli()


if __name__ == "__main__":
    main()
