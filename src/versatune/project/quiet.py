"""Suppress advice to developers that libraries print at every command."""

import contextlib
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

TYPE_HINTS = r"(?s).*Add type hints to the `predict` method"
"""MLflow's advice to authors of its models, given whenever kedro-mlflow is imported."""

VIZ = "ORJSONResponse is deprecated"
"""FastAPI's advice to the authors of kedro-viz, given by `kedro viz run` and `kedro viz build`."""

FAILURES = ("kedro.pipeline.node", "kedro.runner.sequential_runner")
"""Loggers that report a failed node."""


def suppress_viz_advice() -> None:
    """Filter it here and in the process that kedro-viz starts, which takes these options over."""
    warnings.filterwarnings("ignore", message=VIZ)
    sys.warnoptions.append(f"ignore:{VIZ}")


@contextlib.contextmanager
def without_type_hint_advice() -> Iterator[None]:
    """Let the block import kedro-mlflow without MLflow's advice; other warnings are shown.

    A filter is not enough: MLflow's import adds its own before it.
    """
    show = warnings.showwarning

    def show_others(message: Any, *rest: Any, **more: Any) -> None:
        if not re.match(TYPE_HINTS, str(message)):
            show(message, *rest, **more)

    warnings.showwarning = show_others
    try:
        yield
    finally:
        warnings.showwarning = show


@contextlib.contextmanager
def without_failure_lines(explained: Callable[[BaseException], object]) -> Iterator[None]:
    """Drop Kedro's lines about a failed node where the command ends with a sentence about it.

    ``explained``: that sentence, or None. Kedro's hint on ``--from-nodes`` is dropped in any case:
    the same command continues a run.
    """

    def is_news(record: logging.LogRecord) -> bool:
        error = sys.exc_info()[1]
        hint = "You can resume the pipeline run" in record.msg
        return not hint and (error is None or explained(error) is None)

    loggers = [logging.getLogger(name) for name in FAILURES]
    for logger in loggers:
        logger.addFilter(is_news)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_news)


@contextlib.contextmanager
def each_line_once() -> Iterator[None]:
    """Drop lines of the log that the block has written before: it reads the same files again."""

    def once() -> Callable[[logging.LogRecord], bool]:
        lines: set[str] = set()

        def is_new(record: logging.LogRecord) -> bool:
            known = len(lines)
            lines.add(record.getMessage())
            return len(lines) > known

        return is_new

    handlers = [*logging.getLogger().handlers, *logging.getLogger("versatune").handlers]
    filters = [(handler, once()) for handler in handlers]
    for handler, is_new in filters:
        handler.addFilter(is_new)
    try:
        yield
    finally:
        for handler, is_new in filters:
            handler.removeFilter(is_new)
