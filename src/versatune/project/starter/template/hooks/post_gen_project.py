"""Fill the new folder as `versatune init` does, with the package that is installed here."""

import json
import os
import sys
from pathlib import Path

import click

from versatune.errors import VersatuneError
from versatune.project.starter import HERE

# Before Kedro is imported: it would log which configuration it takes.
os.environ.setdefault("KEDRO_LOGGING_CONFIG", str(HERE / "conf" / "logging.yml"))

from versatune.project.init import UnusableDataError, create

ANSWERS = json.loads(r"""{{ cookiecutter | jsonify }}""")


def whole(path: str) -> str:
    """A path that was given relative to the folder in which `kedro new` was started."""
    started = (Path(os.environ.get("PWD", "")), Path.cwd().parent)
    there = [folder / Path(path).expanduser() for folder in started]
    return next((str(p) for p in there if path != "sample" and p.exists()), path)


if __name__ == "__main__":
    try:
        create(
            Path.cwd(),
            whole(ANSWERS["model"]),
            whole(ANSWERS["data"]),
            asks=False,
            beside=("README.md",),
        )
    except UnusableDataError as error:  # after another exit code Kedro would delete the project
        click.echo(f"Error: {error}", err=True)
    except VersatuneError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
