"""The base of every parameter model."""

import difflib
from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, RootModel, ValidationError

T = TypeVar("T")


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


class RootParams(_Readable, RootModel[T], Generic[T]):
    """A block of parameters that is a mapping or a list rather than fixed fields."""

    model_config = ConfigDict(frozen=True)


def _sentence(model: type[BaseModel], error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
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
