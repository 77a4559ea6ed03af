"""Nodes of other pipelines as nodes of retraining: they work only when something is new."""

import inspect
from typing import Any, get_type_hints

from kedro.pipeline import Node

from versatune.work import UNCHANGED

NEWS = "retrain_news"


def when_new(node: Node) -> Node:
    """``node`` with what is new as its first input; with nothing new its outputs stay as they
    are."""
    function, n_outputs = node.func, len(node.outputs)
    outputs = node.outputs[0] if n_outputs == 1 else node.outputs

    def wrapped(news: dict[str, Any], *inputs: Any) -> Any:
        if news["new"]:
            return function(*inputs)
        return UNCHANGED if n_outputs == 1 else (UNCHANGED,) * n_outputs

    # Kedro validates parameters by the types that a node's function declares.
    own = inspect.signature(function)
    news = inspect.Parameter("news", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    wrapped.__signature__ = own.replace(parameters=[news, *own.parameters.values()])  # type: ignore
    wrapped.__annotations__ = get_type_hints(function)
    wrapped.__name__, wrapped.__doc__ = function.__name__, function.__doc__
    return Node(wrapped, [NEWS, *node.inputs], outputs, name=node.name, tags=node.tags)
