"""The base of every parameter model."""

import difflib
import functools
import logging
from collections.abc import Mapping
from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, RootModel, ValidationError

T = TypeVar("T")

logger = logging.getLogger(__name__)

PLACES = ("folder", "cleaned", "tokenized", "knowledge")
"""Keys with which earlier versions said where a stage writes."""


@functools.cache
def warn_renamed(old: str, new: str) -> None:
    """Say once that a key has another name by now."""
    logger.warning("%s is called %s now; the old name works in this version alone.", old, new)


def file_name(value: str) -> str:
    """``value``, which files are named after; a ValueError if it could leave their folder."""
    if not value.strip() or value.startswith(".") or set(value) & set("/\\\0"):
        raise ValueError(
            f"{value!r} becomes part of a file's name: no slash in it, no dot before it"
        )
    return value


class _Readable(BaseModel):
    """Validation errors as one line a key, with the nearest known key beside a mistyped one."""

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        try:
            return super().model_validate(obj, **options)
        except ValidationError as error:
            raise ValueError("; ".join(_sentence(cls, e) for e in error.errors())) from None


class Params(_Readable):
    """A block of parameters: unknown keys are refused, values are validated, nothing changes it.

    Subclasses document each field with a docstring below it; the parameter reference in the
    README is made from these.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """These parameters with ``changes``, validated; of a block those keys that are given."""
        return type(self).model_validate(_merged(self.model_dump(), changes))


class RootParams(_Readable, RootModel[T], Generic[T]):
    """A block of parameters that is a mapping or a list rather than fixed fields."""

    model_config = ConfigDict(frozen=True)


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with ``changes`` in their place, key by key inside blocks that both have."""
    found = dict(values)
    for key, change in changes.items():
        value = found.get(key)
        if isinstance(value, Mapping) and isinstance(change, Mapping):
            change = _merged(value, change)
        found[key] = change
    return found


def _sentence(model: type[BaseModel], error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden" and error["loc"][-1] in PLACES:
        return (
            f"{key}: parameters say no places any more: what is written where stands in the "
            "catalog (conf/*/catalog*.yml), and `data` in globals.yml moves all of it"
        )
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(error["loc"][-1]), _all_fields(model), n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        return f"{key}: there is no such parameter{hint}"
    given = error["input"]
    shown = "" if isinstance(given, dict | list) else f", not {given!r}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{key}: {message}{shown}" if key else message


def _all_fields(model: type[BaseModel]) -> set[str]:
    """Names of the fields of a model and of the models inside it."""
    names: set[str] = set()

    def visit(schema: Any) -> None:
        if isinstance(schema, dict):
            names.update(schema.get("properties", {}))
            for value in schema.values():
                visit(value)
        elif isinstance(schema, list):
            for value in schema:
                visit(value)

    visit(model.model_json_schema())
    return names
