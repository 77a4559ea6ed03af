"""Nodes are called after their functions."""

from collections.abc import Callable
from typing import Any

from kedro.pipeline import Node


def node_of(
    function: Callable[..., Any],
    inputs: str | list[str] | dict[str, str],
    outputs: str | list[str] | None,
) -> Node:
    """The node that calls ``function``, by its name."""
    return Node(function, inputs, outputs, name=function.__name__)
