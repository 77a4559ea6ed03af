"""The last lines of a run: its result, its files, and whether it meets the requirements."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from versatune import tracking
from versatune.evaluation.objective import declared_by
from versatune.reporting.closing import closing_lines
from versatune.reporting.formats import duration
from versatune.reporting.requirements import RequirementNotMetError, refusal, unmet

logger = logging.getLogger(__name__)

PLACES = {
    "trained_model": "Model",
    "report": "Report",
    "comparison_report": "Comparison",
}
"""Datasets that a person looks for, and their titles."""


class ClosingHook:
    """Logs the result of a run and its files at the end.

    ``page`` gives the address of the run in MLflow; None when there is none.
    """

    def __init__(self, page: Callable[[], str | None]) -> None:
        self._page = page
        self._files: dict[str, Path] = {}
        self._began = 0.0
        self._lines: list[str] = []
        self._missed: list[str] = []

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        entries = context.config_loader["catalog"]
        self._files = {name: context.project_path / entries[name]["filepath"] for name in PLACES}

    @hook_impl
    def before_pipeline_run(self) -> None:
        self._began, self._lines, self._missed = time.monotonic(), [], []

    @hook_impl
    def after_node_run(self, node: Node, inputs: dict[str, Any]) -> None:
        """Note the result when the report of it is written."""
        if "report" not in node.outputs:
            return
        results, train = inputs["results"], inputs["params:train"]
        declared = declared_by(train.objective, train.strategy, inputs["reference_losses"])
        self._lines = closing_lines(results, declared)
        self._missed = unmet(results, inputs["params:report"].require)
        tracking.set_tags({"report.require": "; ".join(self._missed) or "met"})

    @hook_impl(trylast=True)
    def after_pipeline_run(self, pipeline: Pipeline) -> None:
        """Raise RequirementNotMetError at the very end when `report.require` is not met."""
        for line in self._lines:
            logger.info("%s", line)
        made = pipeline.all_outputs()
        for name, what in PLACES.items():
            if name in made:
                logger.info("%-11s %s", f"{what}:", self._files[name])
        if page := self._page():
            logger.info("%-11s %s", "MLflow:", page)
        logger.info("Done in %s.", duration(time.monotonic() - self._began))
        if self._missed:
            raise RequirementNotMetError(refusal(self._missed))
