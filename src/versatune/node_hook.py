"""How long each node takes, one at a time."""

import dataclasses
import logging
import time
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.pipeline.node import Node

from versatune import tracking
from versatune.artifacts import fingerprint, read_json, write_json
from versatune.errors import VersatuneError
from versatune.hooks import reporting_folder

logger = logging.getLogger(__name__)


@dataclasses.dataclass
class _Running:
    """A node at work: what stands for its parameters, what it has still to save, its times."""

    parameters: str
    to_save: set[str]
    began: float
    noted: float


class NodeHook:
    """Says which node is at work and notes its time; refuses several at a time."""

    def __init__(self) -> None:
        self._timings = Path()
        self._running: dict[str, _Running] = {}

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        self._timings = reporting_folder(context) / "timings.json"

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, run_params: dict[str, Any]) -> None:
        """Raise VersatuneError for a runner that works on several nodes at a time."""
        for name in ("ThreadRunner", "ParallelRunner"):
            if name in str(run_params.get("runner")):
                raise VersatuneError(
                    f"--runner {name} works on several nodes at a time, which share this process's "
                    "random numbers, cores and records for MLflow: results would differ from run "
                    "to run. Leave it out."
                )

    @hook_impl
    def before_node_run(self, node: Node, inputs: dict[str, Any], is_async: bool) -> None:
        if is_async:
            raise VersatuneError(
                "--async saves in threads, and saving is where models are trained: what was asked "
                "to stop would go on. Leave it out."
            )
        logger.info("── %s", node.name)
        parameters = {k: v for k, v in inputs.items() if k.startswith("params:")}
        now = time.monotonic()
        self._running[node.name] = _Running(fingerprint(parameters), set(node.outputs), now, now)

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        self._note(node)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, node: Node) -> None:
        """Saving is where the work is done of a node that says what is to be made."""
        self._running[node.name].to_save.discard(dataset_name)
        self._note(node)

    def _note(self, node: Node) -> None:
        """Add up the time spent on a node under its present parameters, over all runs."""
        running = self._running[node.name]
        seconds = time.monotonic() - running.noted
        running.noted += seconds
        try:
            timings = read_json(self._timings) if self._timings.is_file() else {}
        except VersatuneError:
            timings = {}
        before = timings.get(node.name, {})
        stamp = running.parameters
        spent = before.get("seconds", 0.0) if before.get("parameters") == stamp else 0.0
        timings[node.name] = {"seconds": round(spent + seconds, 3), "parameters": stamp}
        write_json(self._timings, timings)
        if not running.to_save:
            tracking.log_metrics({f"seconds/{node.name}": running.noted - running.began})
