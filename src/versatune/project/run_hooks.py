"""The edge to Kedro and MLflow: one run tracked, locked and timed from start to end."""

import contextlib
import datetime
import json
import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro_mlflow.framework.hooks import MlflowHook

from versatune import __version__, tracking
from versatune.artifacts import exclusive
from versatune.errors import VersatuneError
from versatune.io import FolderDataset
from versatune.project.blocks import used
from versatune.project.run_names import VIEWS, run_name, run_page
from versatune.reporting.configuration import git_state
from versatune.tracking.secrets import hide, masked
from versatune.tracking.spool import Spool, first_line
from versatune.training.api import refuse_changed

logger = logging.getLogger(__name__)


class TrackingHook(MlflowHook):
    """kedro-mlflow's hook with readable parameters and useful tags, whose failures never stop a
    run.

    Parameters are pydantic models; they are logged flattened, one MLflow parameter a value.
    When the store can't be reached the run goes on and its records are kept (see
    :mod:`versatune.tracking`).
    """

    def __init__(self) -> None:
        super().__init__()
        self._error: Exception | None = None
        self._spool: Spool | None = None
        self._project = Path()
        self.page: str | None = None
        """How to see the run in MLflow; None without a store that answers."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        self._project = context.project_path
        self._spool = Spool(reporting_folder(context) / "mlflow_spool.jsonl")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        _be_brief_about_databases()
        try:
            _leave_artifacts_to_server(context)
            super().after_context_created(context)
        except (VersatuneError, ValueError, TypeError):
            raise  # a mistake in mlflow.yml, not a store that is offline
        except Exception as error:
            self._error = error

    @hook_impl
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        assert self._spool is not None
        trains = "trained_model" in pipeline.all_outputs()
        in_force = catalog.load("parameters") if trains else None
        name = run_name(run_params, in_force, datetime.datetime.now().astimezone())
        self.page = None
        if self._error is None:
            try:
                self.mlflow_config.tracking.run.name = name
                given = masked(run_params.get("runtime_params") or {})  # they become tags
                super().before_pipeline_run(
                    {**run_params, "runtime_params": given}, pipeline, catalog
                )
            except Exception as error:
                self._error = error
        if self._error is not None:
            local = f"local-{os.getpid()}-{time.time_ns()}"
            self._spool.keep({"kind": "create", "run_id": local, "name": name}, self._error)
            tracking.begin(local, self._spool, self._error)
        elif self._is_mlflow_enabled:
            self._spool.send()
            tracking.begin(self.run_id, self._spool)
            self.page = self._page()
            self._end_orphans()
            self._save_views()
        tracking.set_tags(self._tags(run_params))

    @hook_impl
    def before_node_run(self, inputs: dict[str, Any]) -> None:
        """Log the node's parameters. kedro-mlflow would open the run again for each node."""
        values = {k.removeprefix("params:"): v for k, v in inputs.items() if k[:7] == "params:"}
        if "train" not in values:  # what `references` does not give is as there
            values.pop("references", None)
        for name, value in used(values).items():
            tracking.log_params({name: value})

    @hook_impl
    def after_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        if not self._closed(super().after_pipeline_run, run_params, pipeline, catalog):
            tracking.set_status("FINISHED")
        tracking.end()

    @hook_impl
    def on_pipeline_error(
        self,
        error: Exception,
        run_params: dict[str, Any],
        pipeline: Pipeline,
        catalog: DataCatalog,
    ) -> None:
        tracking.set_tags({"error": hide("", f"{type(error).__name__}: {error}")[:500]})
        if not self._closed(super().on_pipeline_error, error, run_params, pipeline, catalog):
            tracking.set_status("FAILED")
        tracking.end()

    def _closed(self, close: Callable[..., None], *arguments: Any) -> bool:
        """Let kedro-mlflow close the run; False when the status has to wait in the spool."""
        if self._error is not None:
            return False
        try:
            close(*arguments)
        except Exception as error:
            logger.warning("MLflow could not close the run: %s", first_line(error))
            return False
        return True

    def _tags(self, run_params: dict[str, Any]) -> dict[str, str]:
        names = run_params.get("pipeline_names") or ["__default__"]
        state = git_state(self._project)
        git = {"git.commit": state[0], "git.changed": str(state[1]).lower()} if state else {}
        return {
            "versatune.pipeline": "+".join("all" if n == "__default__" else n for n in names),
            "versatune.version": __version__,
            "versatune.process": f"{socket.gethostname()}:{os.getpid()}",
            **git,
        }

    def _end_orphans(self) -> None:
        """Mark as KILLED this host's runs that MLflow lists as running without a process."""
        import mlflow

        host = socket.gethostname()
        client = mlflow.MlflowClient()
        experiment = self._experiment_id()
        with contextlib.suppress(Exception):
            for run in client.search_runs([experiment], "attributes.status = 'RUNNING'"):
                owner, _, pid = run.data.tags.get("versatune.process", "").rpartition(":")
                if owner == host and pid.isdigit() and not psutil.pid_exists(int(pid)):
                    client.set_terminated(run.info.run_id, "KILLED")

    def _save_views(self) -> None:
        """Put :data:`VIEWS` where MLflow's page keeps shared views; a person's own are left."""
        import mlflow

        client = mlflow.MlflowClient()
        with contextlib.suppress(Exception):
            kept = client.get_experiment(self._experiment_id()).tags
            for name, view in VIEWS.items():
                key = f"mlflow.sharedViewState.{name}"
                if key not in kept:
                    client.set_experiment_tag(self._experiment_id(), key, json.dumps(view))

    def _page(self) -> str:
        ui = self.mlflow_config.ui
        uri = str(self.mlflow_config.server.mlflow_tracking_uri)
        page = run_page(uri, self._experiment_id(), self.run_id, str(ui.host), str(ui.port))
        return page if uri.startswith("http") else f"kedro mlflow ui, then {page}"

    def _experiment_id(self) -> str:
        return str(self.mlflow_config.tracking.experiment._experiment.experiment_id)


class ProjectHook:
    """One run at a time in a data folder."""

    def __init__(self) -> None:
        self._held = contextlib.ExitStack()
        self._folder = Path()
        self._environment = ""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        self._folder = data_folder(context)
        self._environment = context.env or "local"

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Lock the data folder, and report before any work what training would refuse."""
        self._hold()
        if "trained_model" in pipeline.all_outputs():
            try:
                trained = catalog["trained_model"]
                if isinstance(trained, FolderDataset):
                    refuse_changed(catalog.load("params:train"), trained.filepath)
            except VersatuneError:
                self._held.close()
                raise

    def _hold(self) -> None:
        try:
            self._held.enter_context(alone_in(self._folder))
        except VersatuneError as error:
            if isinstance(error.__cause__, OSError):
                raise VersatuneError(
                    f"{self._folder} can't be written ({error.__cause__.strerror}); choose another "
                    f"folder with the key `data` in conf/{self._environment}/globals.yml."
                ) from error
            raise

    @hook_impl
    def after_pipeline_run(self) -> None:
        self._held.close()

    @hook_impl
    def on_pipeline_error(self) -> None:
        self._held.close()


def data_folder(context: KedroContext) -> Path:
    """The folder in which one run works at a time."""
    return Path(context.project_path / context.config_loader["globals"]["data"])


def reporting_folder(context: KedroContext) -> Path:
    """The folder of its pages and records."""
    return data_folder(context) / str(context.config_loader["globals"]["reporting"])


def alone_in(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Hold the lock of a data folder. Raises VersatuneError when another process has it."""
    return exclusive(folder / ".lock", str(folder))


def _be_brief_about_databases() -> None:
    """MLflow tries ten times in 100 s to open a database, and prints tracebacks of its errors."""
    from mlflow.store.db import utils

    utils.MAX_RETRY_COUNT = 3
    logging.getLogger(utils.__name__).setLevel(logging.CRITICAL)


def _leave_artifacts_to_server(context: KedroContext) -> None:
    """A tracking server keeps artifacts itself: the folder in mlflow.yml is for the local store."""
    settings = context.config_loader["mlflow"]
    if str(settings["server"]["mlflow_tracking_uri"]).startswith("http"):
        experiment = settings["tracking"]["experiment"]
        experiment["create_experiment_kwargs"].pop("artifact_location", None)
        context.config_loader["mlflow"] = settings
