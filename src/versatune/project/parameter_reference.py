"""The parameter reference, made from the models that validate the parameters."""

import inspect
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from kedro.pipeline import Pipeline
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from versatune.artifacts import to_jsonable

HEADER = """# Parameters

Made from the parameter models by `kedro parameters`; a test keeps it true. A block is a
top-level key of `conf/*/parameters_*.yml`; give single values with
`kedro run --params block.key=value`. The default counts where no file gives the key:
`conf/base` gives other values of `train.strategy`, `references` and more, which the other pages
call the default too.
"""

STRATEGIES = ("train", "strategy")
"""Block and key at which the strategies' own keys are listed. Other places refer to it."""


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
    models = parameter_models(pipelines)
    block, key = STRATEGIES
    strategies = (
        set(_models(models[block].model_fields[key].annotation)) if block in models else set()
    )
    for block, model in models.items():
        summary = inspect.cleandoc(model.__doc__ or "").split("\n\n")[0].replace("\n", " ")
        rows = [
            f"| `{key}` | {kind} | {default} | {text} |"
            for key, kind, default, text in rows_of(
                model, elsewhere=set() if block == STRATEGIES[0] else strategies
            )
        ]
        table = ["| key | type | default | what it does |", "| --- | --- | --- | --- |", *rows]
        sections.append("\n".join([f"## `{block}`", "", summary, "", *table]) + "\n")
    return "\n".join(sections)


def rows_of(
    model: type[BaseModel],
    prefix: str = "",
    given: BaseModel | None = None,
    elsewhere: Collection[type[BaseModel]] = (),
) -> Iterator[tuple[str, str, str, str]]:
    """``(key, type, default, description)`` of each field, models inside it below it.

    ``given``: a block's own default, which overrides those of its fields. ``elsewhere``: models
    whose keys are listed at :data:`STRATEGIES`.
    """
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        inner = list(_models(field.annotation))
        if name == "root":
            key = f"{prefix}NAME".removesuffix(".")
        text = " ".join((field.description or "").split()).replace("|", "\\|")
        value = field.default if given is None else getattr(given, name)
        listed = bool(inner) and set(inner) <= set(elsewhere)
        if listed:
            text += f" Keys of each strategy: [`{'.'.join(STRATEGIES)}`](#{STRATEGIES[0]})."
        kind = " or ".join(map(_label, inner)) or _kind(field.annotation)
        yield key, kind, _default(field, value), text.strip()
        for one in () if listed else inner:
            part = f"{key}." if len(inner) == 1 else f"{key} ({_label(one)})."
            yield from rows_of(one, part, value if type(value) is one else None, elsewhere)


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
    """A type in words: ``int or null``, ``list of int``, each value of a Literal."""
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _kind(inside[0])
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in inside)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_kind, inside)))
    if origin in (list, tuple, set, frozenset):
        return f"list of {' or '.join(dict.fromkeys(_kind(i) for i in inside if i is not ...))}"
    if origin is not None and issubclass(origin, Mapping):
        return f"{_kind(inside[1])} by name"
    if annotation is type(None):
        return "null"
    return NAMES.get(annotation) or str(getattr(annotation, "__name__", annotation))


YAML_END = "...\n"
"""What ends a document that is a single value."""

NAMES: dict[Any, str] = {Any: "any value", Path: "path"}
"""Types that have another name for people."""


def _default(field: Any, value: Any) -> str:
    if value is PydanticUndefined:
        return "required" if field.default_factory is None else "see below"
    if isinstance(value, BaseModel) and _label(type(value)) == "block":
        return "see below"
    if isinstance(value, BaseModel):
        tag = "name" if "name" in type(value).model_fields else "kind"
        value = {tag: getattr(value, tag), **value.model_dump(mode="json", exclude_defaults=True)}
    if isinstance(value, str):
        return f"`{value}`" if value else "empty"
    if value is None or value == {} or value == () or value == []:
        return "null" if value is None else "none"
    text = yaml.safe_dump(to_jsonable(value), default_flow_style=True, sort_keys=False, width=999)
    return f"`{text.removesuffix(YAML_END).strip()}`"
