"""The commands: ``run``, which explains mistakes in a sentence, ``rollback``, ``init``."""

import contextlib
import difflib
import os
import pkgutil
import re
import shutil
import signal
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import IO, Any

import click
import yaml
from kedro.config import MissingConfigException
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.project import pipelines as registered
from kedro.framework.session import KedroSession
from kedro.io import DatasetError
from kedro.utils import find_kedro_project
from kedro.validation.exceptions import ParameterValidationError
from omegaconf.errors import OmegaConfBaseException

from versatune import pipelines, tracking
from versatune.errors import VersatuneError
from versatune.project import params_option
from versatune.project.hook import enter
from versatune.project.init import init
from versatune.project.parameter_reference import markdown
from versatune.project.quiet import without_failure_lines
from versatune.reporting.requirements import RequirementNotMetError
from versatune.tracking import registry
from versatune.work.bars import close_all, folded

FOR_PEOPLE = (VersatuneError, DatasetError, MissingConfigException, ParameterValidationError)

NO_ROOM = r"No space left on device|File too large|Disk quota exceeded|PytorchStreamWriter failed"
"""How Python and the libraries that write files themselves say it."""


class Mistake(click.ClickException):
    """An error as one sentence: wrapped to the width of a terminal, one line elsewhere."""

    def show(self, file: IO[Any] | None = None) -> None:
        said, stream = f"Error: {self.format_message()}", file or sys.stderr
        if stream.isatty():
            said = folded(said, shutil.get_terminal_size().columns, "  ")
        click.echo(said, file=stream)


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM."""


@click.group(name="versatune")
def cli() -> None:
    """Fine-tune on several domains at once, with a measured mixture."""


@cli.command()
def parameters() -> None:
    """Print the reference of all parameters as Markdown."""
    click.echo(markdown(dict(registered)), nl=False)


cli.add_command(init)


@cli.command()
@click.option("--env", "-e", default=None, help="The configuration environment.")
def rollback(env: str | None) -> None:
    """Restore the previous champion."""
    from versatune.project.run_hooks import alone_in, data_folder

    with KedroSession.create(env=env) as session:
        context = session.load_context()  # type: ignore[attr-defined]
        try:
            parameters = context.config_loader["parameters"]
            with alone_in(data_folder(context)):
                old, new = registry.rollback(parameters["retrain"]["model_name"])
        except VersatuneError as error:
            raise Mistake(str(error)) from error
    click.echo(f"{new.label} serves again as champion, instead of version {old.number}.")


def run(**options: Any) -> Any:
    """Run a pipeline."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.unraisablehook = _heed
    _check_pipelines([options["pipeline"], *options["pipelines"]])
    options = _without_deprecated(options)
    project = find_kedro_project(Path.cwd())
    if project is not None:
        enter(project)
    try:
        with without_failure_lines(explain):
            return kedro_run.callback(**options)  # type: ignore[misc]
    except KeyboardInterrupt as stop:
        _end_tracking()
        close_all()
        click.secho("Stopped. Run the same command again to continue.", err=True)
        sys.exit(143 if isinstance(stop, Terminated) else 130)
    except RequirementNotMetError as error:
        Mistake(str(error)).show()
        sys.exit(2)
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        raise Mistake(message) from error


_OPTIONS = params_option.instead_of(kedro_run.params)
cli.add_command(click.Command("run", params=_OPTIONS, callback=run, help="Run a pipeline."))


def _without_deprecated(options: dict[str, Any]) -> dict[str, Any]:
    """`--pipeline` and `--async` in the form that Kedro has no deprecation line for.

    With both forms of one option Kedro refuses them itself.
    """
    options = dict(options)
    if options["pipeline"] and not options["pipelines"]:
        options |= {"pipelines": [options["pipeline"]], "pipeline": None}
    if options["is_async"] and options["runner_params"].get("is_async", True):
        options["is_async"] = False
        options["runner_params"] = {**options["runner_params"], "is_async": True}
    return options


def _check_pipelines(names: Iterable[str | None]) -> None:
    """Kedro would try to import a mistyped pipeline and show the traceback."""
    known = ["__default__", *(m.name for m in pkgutil.iter_modules(pipelines.__path__) if m.ispkg)]
    for name in names:
        if name and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise Mistake(
                f"there is no pipeline {name!r}; the pipelines are {', '.join(known)}.{hint}"
            )


def explain(error: BaseException) -> str | None:
    """The message for a user's mistake; None for a bug, which keeps its traceback."""
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
        return f"the disk is full ({full}). Free some space and run again: finished work is kept."
    if isinstance(error, ParameterValidationError):
        text = str(error).replace("Parameter validation failed:\n", "wrong parameters:\n")
        text = re.sub(r"Failed to instantiate \w+ for parameter '[^']*': ", "", text)
        return re.sub(r"Parameter '([^']*)': (?=[\w.]+: )", r"\1.", text)
    if isinstance(error, yaml.YAMLError):
        return _broken_yaml(error)
    if isinstance(error, OmegaConfBaseException):
        return _no_mapping() or _unresolved(error)
    if isinstance(error, AttributeError):
        return _no_mapping()
    if isinstance(error, ValueError) and str(error).startswith("Duplicate keys found in"):
        advice = "Within an environment a key may be in only one file: remove it from the others."
        return f"{error}. {advice}"
    if isinstance(error, FOR_PEOPLE) or (
        isinstance(error, ValueError) and "Failed to find the pipeline" in str(error)
    ):
        return str(error)
    return None


def _broken_yaml(error: yaml.YAMLError) -> str:
    """Kedro names the file and counts lines from 0; what YAML itself found is the cause."""
    file = re.search(r"Invalid YAML or JSON file (.*), unable to read", str(error))
    where = file[1] if file else "a configuration file"
    found = error.__cause__ or error
    if isinstance(found, yaml.MarkedYAMLError) and found.problem_mark:
        mark = found.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}"
        return f"{where} is not valid YAML: {found.problem}, {place}."
    return f"{where} is not valid YAML: {found}"


def _no_mapping() -> str | None:
    """The configuration file that holds a list or a word, which Kedro can't load."""
    for file in sorted(Path("conf").rglob("*.y*ml")):
        with contextlib.suppress(OSError, ValueError, yaml.YAMLError):
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
            if content is not None and not isinstance(content, dict):
                return f"{file} holds no keys with values, but a {type(content).__name__}."
    return None


def _unresolved(error: OmegaConfBaseException) -> str:
    """An interpolation ``${...}`` that can't be resolved."""
    missing = re.search(r"Runtime parameter '(.*?)' not found", str(error))
    if missing:
        return (
            f"{error.full_key} needs a value that was not given: add {missing[1]}=... to --params."
        )
    first = str(error).splitlines()[0]
    if not error.full_key:  # two values of one key that can't be merged, whose name is lost
        return (
            "a value in --params, or in an environment, is of another shape than the one it "
            f"replaces (a list in place of a block, or the reverse): {first}"
        )
    return f"{error.full_key} can't be resolved: {first}"


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


def _heed(ignored: Any) -> None:
    """Stop even where Python ignores the exception: a destructor can't raise."""
    if not isinstance(ignored.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(ignored)
        return
    again = signal.SIGTERM if isinstance(ignored.exc_value, Terminated) else signal.SIGINT
    threading.Timer(0.1, os.kill, (os.getpid(), again)).start()


def _end_tracking() -> None:
    import mlflow

    tracking.set_status("KILLED")
    while mlflow.active_run():
        with contextlib.suppress(mlflow.MlflowException):  # away: the status waits in the spool
            mlflow.end_run("KILLED")
