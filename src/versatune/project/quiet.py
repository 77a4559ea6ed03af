"""Suppress another library's advice, which it prints at every command."""

import contextlib
import re
import warnings
from collections.abc import Iterator
from typing import Any

TYPE_HINTS = r"(?s).*Add type hints to the `predict` method"
"""MLflow's advice to authors of its models, given whenever kedro-mlflow is imported."""


@contextlib.contextmanager
def without_type_hint_advice() -> Iterator[None]:
    """Let the block import kedro-mlflow without MLflow's advice; other warnings are shown.

    A filter would not do: importing MLflow puts its own before it.
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
