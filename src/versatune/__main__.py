"""``python -m versatune``: the packaged project's entry point."""

import sys
from pathlib import Path

from kedro.framework.cli.utils import find_run_command
from kedro.framework.project import configure_project


def main(*args: str) -> None:
    """Run a pipeline of the installed package; the arguments are those of ``kedro run``."""
    package = Path(__file__).parent.name
    configure_project(package)
    command = find_run_command(package)
    command(list(args) or sys.argv[1:])


if __name__ == "__main__":
    main()
