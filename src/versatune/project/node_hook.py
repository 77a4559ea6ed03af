"""How long each node takes, one at a time."""

import dataclasses
import logging
import os
import time
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.pipeline.node import Node

from versatune import tracking
from versatune.errors import VersatuneError
from versatune.project.run_hooks import reporting_folder
from versatune.reporting import timings
from versatune.reporting.configuration import command
from versatune.reporting.formats import duration
from versatune.work import WorkFolder
from versatune.work.bars import KEPT, show_kept

logger = logging.getLogger(__name__)

WORTH_A_LINE = 1.0
"""A node that makes a folder logs its time from this many seconds on."""

LONG = 10.0
"""The same for a node that makes none, such as a figure. `timings.json` has all of them."""


@dataclasses.dataclass
class _Running:
    """A running node: what it still has to save, when it began, what was made before it."""

    to_save: set[str]
    began: float
    counts: dict[str, int]


class NodeHook:
    """Logs and records the time of each node; refuses runners that run several at a time."""

    def __init__(self) -> None:
        self._timings = Path()
        self._run = ""
        self._running: dict[str, _Running] = {}

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        self._timings = reporting_folder(context) / "timings.json"

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any]) -> None:
        """Raise VersatuneError for a runner that runs several nodes at a time."""
        for name in ("ThreadRunner", "ParallelRunner"):
            if name in str(run_params.get("runner")):
                raise VersatuneError(
                    f"--runner {name} runs several nodes at a time. They would share one process's "
                    "random numbers, cores and records for MLflow, and results would differ from "
                    "run to run. Leave it out."
                )
        self._run = f"{os.getpid()}-{time.time_ns()}"
        timings.begin(self._timings, self._run, command())

    @hook_impl
    def before_node_run(self, node: Node, is_async: bool) -> None:
        if is_async:
            raise VersatuneError(
                "--async saves in threads, and models are trained while they are saved: a training "
                "that was told to stop would go on. Leave it out."
            )
        self._running[node.name] = _Running(
            set(node.outputs), time.monotonic(), dict(WorkFolder.counts)
        )

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        self._note(node)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, node: Node) -> None:
        """A node that returns a description of its work does that work while it is saved."""
        self._running[node.name].to_save.discard(dataset_name)
        self._note(node)

    def _note(self, node: Node) -> None:
        """When all is saved, record how long it took and whether the work was already done."""
        running = self._running[node.name]
        if running.to_save:
            return
        seconds, now = time.monotonic() - running.began, WorkFolder.counts
        opened, sealed = (now[key] > running.counts[key] for key in ("opened", "sealed"))
        timings.note(self._timings, self._run, node.name, seconds, kept=opened and not sealed)
        if opened and not sealed:
            logger.info(KEPT, node.name)
        elif seconds >= (WORTH_A_LINE if sealed else LONG):
            logger.info("── %s: %s", node.name, duration(seconds))

    @hook_impl
    def after_pipeline_run(self) -> None:
        tracking.log_artifact(self._timings)

    @hook_impl
    def on_pipeline_error(self) -> None:
        show_kept()
        tracking.log_artifact(self._timings)
