"""The commands: ``run`` that tells people's mistakes in a sentence, ``rollback``, ``init``."""

import contextlib
import difflib
import pkgutil
import re
import shlex
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any

import click
from kedro.config import MissingConfigException
from kedro.framework.cli.project import run as kedro_run
from kedro.io import DatasetError
from kedro.validation.exceptions import ParameterValidationError

from versatune import pipelines, tracking
from versatune.errors import VersatuneError

FOR_PEOPLE = (VersatuneError, DatasetError, MissingConfigException, ParameterValidationError)

NO_ROOM = r"No space left on device|File too large|Disk quota exceeded|PytorchStreamWriter failed"
"""How Python and the libraries that write files themselves say it."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM."""


@click.group(name="versatune")
def cli() -> None:
    """Fine-tune on several domains at once without forgetting any."""


@cli.command()
def parameters() -> None:
    """Print the reference of all parameters as Markdown."""
    from kedro.framework.project import pipelines

    from versatune.reference import markdown

    click.echo(markdown(dict(pipelines)), nl=False)


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Begin a project in FOLDER: the configuration and the embedded facts."""
    from versatune.starter import write_project

    try:
        write_project(folder)
    except VersatuneError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"Now: cd {shlex.quote(str(folder))} && kedro run")


@cli.command()
@click.option("--env", "-e", default=None, help="The configuration environment.")
def rollback(env: str | None) -> None:
    """Give the alias `champion` back to the champion before."""
    from kedro.framework.session import KedroSession

    from versatune import registry
    from versatune.hooks import alone_in, data_folder

    with KedroSession.create(env=env) as session:
        context = session.load_context()  # type: ignore[attr-defined]
        try:
            parameters = context.config_loader["parameters"]
            with alone_in(data_folder(context)):
                old, new = registry.rollback(parameters["retrain"]["model_name"])
        except VersatuneError as error:
            raise click.ClickException(str(error)) from error
    click.echo(f"{new.label} serves again as champion, instead of version {old.number}.")


def run(**options: Any) -> Any:
    """Run a pipeline."""
    signal.signal(signal.SIGTERM, _terminate)
    _check_pipelines([options["pipeline"], *options["pipelines"]])
    try:
        return kedro_run.callback(**options)  # type: ignore[misc]
    except KeyboardInterrupt as stop:
        _end_tracking()
        click.secho("Stopped. Run the same command again to go on from here.", err=True)
        sys.exit(143 if isinstance(stop, Terminated) else 130)
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        raise click.ClickException(message) from error


cli.add_command(click.Command("run", params=kedro_run.params, callback=run, help="Run a pipeline."))


def _check_pipelines(names: Iterable[str | None]) -> None:
    """Kedro would try to import a mistyped pipeline and show the traceback."""
    known = ["__default__", *(module.name for module in pkgutil.iter_modules(pipelines.__path__))]
    for name in names:
        if name and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.ClickException(
                f"there is no pipeline {name!r}; the pipelines are {', '.join(known)}.{hint}"
            )


def explain(error: BaseException) -> str | None:
    """The sentence for a person's mistake; None for a fault of ours, which keeps its traceback."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    for one in chain:
        if isinstance(one, VersatuneError):
            return str(one)
    full = next((one for one in chain if re.search(NO_ROOM, str(one))), None)
    if full is not None:
        return f"the disk is full ({full}). Free some room and run again: what is done is kept."
    if isinstance(error, ParameterValidationError):
        text = str(error).replace("Parameter validation failed:\n", "wrong parameters:\n")
        text = re.sub(r"Failed to instantiate \w+ for parameter '[^']*': ", "", text)
        return re.sub(r"Parameter '([^']*)': (?=[\w.]+: )", r"\1.", text)
    if isinstance(error, FOR_PEOPLE) or (
        isinstance(error, ValueError) and "Failed to find the pipeline" in str(error)
    ):
        return str(error)
    return None


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


def _end_tracking() -> None:
    import mlflow

    tracking.set_status("KILLED")
    while mlflow.active_run():
        with contextlib.suppress(mlflow.MlflowException):  # away: the status waits in the spool
            mlflow.end_run("KILLED")
