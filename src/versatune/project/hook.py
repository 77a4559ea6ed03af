"""Checks before a run does anything: its folder, and all of its parameters."""

import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import yaml
from kedro.config import OmegaConfigLoader
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.framework.project import configure_logging
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline

from versatune.data.config import Domains
from versatune.domains import canonical
from versatune.errors import VersatuneError
from versatune.evaluation.config import EvaluateParams
from versatune.project import blocks, checks
from versatune.project.blocks import Blocks, Problem
from versatune.project.made_before import check_made_before
from versatune.project.places import Places
from versatune.tracking.secrets import hide
from versatune.work.bars import put_log_above_bars

logger = logging.getLogger(__name__)


class ParametersHook:
    """Refuses wrong parameters before a run is tracked, and before any node runs.

    Commands that only look (``kedro mlflow ui``, ``kedro viz run``) are not held up by parameters.
    """

    def __init__(self) -> None:
        self._blocks: Blocks = {}
        self._places: Places | None = None

    @hook_impl(tryfirst=True)
    def after_context_created(self, context: KedroContext) -> None:
        enter(context.project_path)
        put_log_above_bars(logging.getLogger())
        find_own_commands()
        if _is_run():
            loader = context.config_loader
            assert isinstance(loader, OmegaConfigLoader)
            self._places = Places(loader)
            self._blocks = check(loader, self._places)

    @hook_impl
    def after_catalog_created(self, catalog: DataCatalog) -> None:
        """Make `parameters` hold the values that are used, in every pipeline that reads it."""
        if self._blocks:
            catalog.save("parameters", blocks.used(self._blocks))

    @hook_impl(tryfirst=True)
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Run the checks of the stages that run, and check that their inputs exist."""
        asked = {name.removeprefix("params:") for name in pipeline.inputs()}
        made = pipeline.all_outputs()
        due = [those for block, those in checks.WHEN_RUN.items() if block in asked]
        due += [those for entry, those in checks.WHEN_MADE.items() if entry in made]
        if (places := self._places) is not None:
            for those in due:
                _refuse(_lines(checks.problems(self._blocks, those), places))
        domains = self._blocks.get("domains")
        check_made_before(
            pipeline,
            catalog,
            domains.active if isinstance(domains, Domains) else None,
            only_missing_outputs=bool(run_params.get("only_missing_outputs")),
        )
        evaluate = self._blocks.get("evaluate")
        if not isinstance(evaluate, EvaluateParams) or "evaluate" not in asked:
            return
        if any(evaluate.harness.tasks.values()):
            from versatune.evaluation.harness import check_names

            check_names(evaluate.harness.tasks, evaluate)


def check(loader: OmegaConfigLoader, places: Places) -> Blocks:
    """The blocks of parameters of a run. Raises VersatuneError that names all mistakes."""
    unread = [*places.doubled(), *places.misshaped()]
    _refuse([f"{place}: {message}." for place, message in unread])
    parameters = loader["parameters"]
    given = places.referred["runtime_params"]
    extra = given if places.are_known else set(loader.runtime_params or {})
    found, problems = blocks.read(parameters, extra)
    if not problems:
        problems = list(checks.problems(found, checks.ALWAYS))
    of_globals = _lines(places.unknown_globals(), places, "globals")
    _refuse([*_lines(problems, places), *of_globals, *places.unread_files()])
    if left_out := places.left_out():
        logger.warning("%s", left_out)
    domains = found.get("domains")
    if isinstance(domains, Domains):
        for name in domains.root:
            if (settled := canonical(name)) != name and domains.root[name] is not None:
                logger.info("The domain %r is renamed to %s.", name, settled)
    return found


def enter(project: Path) -> None:
    """Make the project's folder the working directory: paths in parameters are relative to it.

    Without this a run from a folder below would look for its data there, and leave its own there.
    """
    if Path.cwd() == project:
        return
    os.chdir(project)
    logging_file = project / "conf" / "logging.yml"
    if "KEDRO_LOGGING_CONFIG" not in os.environ and logging_file.is_file():
        configure_logging(yaml.safe_load(logging_file.read_text(encoding="utf-8")))


def find_own_commands() -> None:
    """Put the folder of this Python's commands first in PATH: `kedro mlflow ui` starts `mlflow`,
    which is not found otherwise in an environment that is not activated."""
    own = str(Path(sys.executable).parent)
    search = os.environ.get("PATH", "").split(os.pathsep)
    if own not in search:
        os.environ["PATH"] = os.pathsep.join([own, *filter(None, search)])


def _is_run() -> bool:
    """Whether this is `kedro run`, or a session of a program's or a notebook's own."""
    command = click.get_current_context(silent=True)
    if command is None:
        return True
    program = command.parent
    return command.info_name == "run" and (program is None or program.parent is None)


def _refuse(lines: list[str]) -> None:
    """Raise VersatuneError with one line a problem, if there is any."""
    if lines:
        raise VersatuneError("wrong parameters:\n  " + "\n  ".join(lines))


def _lines(problems: Iterable[Problem], places: Places, kind: str = "parameters") -> list[str]:
    return [_line(problem, places.of(problem.key, kind)) for problem in problems]


def _line(problem: Problem, place: str) -> str:
    key = ".".join(map(str, problem.key))
    where = f" ({place})" if place else ""
    end = "" if problem.message.endswith((".", "?")) else "."
    return hide("", f"{key}{where}: {problem.message}{end}")
