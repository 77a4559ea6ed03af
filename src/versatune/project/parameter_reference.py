"""The parameter reference, made from the models that validate the parameters."""

import inspect
import typing
from collections.abc import Iterator
from typing import Any

from kedro.pipeline import Pipeline
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

HEADER = """# Parameters

Made from the parameter models by `kedro parameters`; a test keeps it true. A block is a
top-level key of `conf/*/parameters_*.yml`; give single values with
`kedro run --params block.key=value`.
"""


def parameter_models(pipelines: dict[str, Pipeline]) -> dict[str, type[BaseModel]]:
    """Block name -> model, over the ``params:`` inputs of all pipelines."""
    models: dict[str, type[BaseModel]] = {}
    for pipeline in pipelines.values():
        for node in pipeline.nodes:
            hints = typing.get_type_hints(node.func)
            arguments = list(inspect.signature(node.func).parameters)
            for dataset, argument in zip(node.inputs, arguments, strict=False):
                if dataset.startswith("params:"):
                    models[dataset.removeprefix("params:")] = hints[argument]
    return dict(sorted(models.items()))


def markdown(pipelines: dict[str, Pipeline]) -> str:
    """The whole reference: a section a block, a row a key."""
    sections = [HEADER]
    for block, model in parameter_models(pipelines).items():
        summary = inspect.cleandoc(model.__doc__ or "").split("\n\n")[0].replace("\n", " ")
        rows = [
            f"| `{key}` | {kind} | {default} | {text} |"
            for key, kind, default, text in rows_of(model)
        ]
        table = ["| key | type | default | what it does |", "| --- | --- | --- | --- |", *rows]
        sections.append("\n".join([f"## `{block}`", "", summary, "", *table]) + "\n")
    return "\n".join(sections)


def rows_of(
    model: type[BaseModel], prefix: str = "", given: BaseModel | None = None
) -> Iterator[tuple[str, str, str, str]]:
    """``(key, type, default, description)`` of each field, models inside it below it.

    ``given``: a block's own default, whose values go before those of its fields.
    """
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        inner = list(_models(field.annotation))
        if name == "root":
            key = f"{prefix}NAME".removesuffix(".")
        text = " ".join((field.description or "").split()).replace("|", "\\|")
        value = field.default if given is None else getattr(given, name)
        if inner:
            yield key, " or ".join(_label(m) for m in inner), _default(field, value), text
            for one in inner:
                part = f"{key}." if len(inner) == 1 else f"{key} ({_label(one)})."
                yield from rows_of(one, part, value if type(value) is one else None)
        else:
            yield key, _kind(field.annotation), _default(field, value), text


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models(argument)


def _label(model: type[BaseModel]) -> str:
    """The discriminator's value where there is one (``foster``), else ``block``."""
    for tag in ("name", "kind"):
        field = model.model_fields.get(tag)
        if field is not None and typing.get_origin(field.annotation) is typing.Literal:
            return "/".join(map(str, typing.get_args(field.annotation)))
    return "block"


def _kind(annotation: Any) -> str:
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(annotation))
    text = annotation.__name__ if inspect.isclass(annotation) else str(annotation)
    for noise in ("typing.", "pathlib.", "collections.abc.", "NoneType", "versatune."):
        text = text.replace(noise, "null" if noise == "NoneType" else "")
    return text.replace("None", "null").replace("|", "or")


def _default(field: Any, value: Any) -> str:
    if value is PydanticUndefined:
        return "required" if field.default_factory is None else "see below"
    if isinstance(value, BaseModel):
        return "see below"
    return "null" if value is None else f"`{value}`"
