"""The base of every parameter model."""

import difflib
import functools
import logging
import re
from collections.abc import Collection, Mapping
from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, RootModel, ValidationError

T = TypeVar("T")

logger = logging.getLogger(__name__)

PLACES = ("folder", "cleaned", "tokenized", "knowledge")
"""Keys that earlier versions used for output folders."""


@functools.cache
def warn_renamed(old: str, new: str) -> None:
    """Say once that a key has another name by now."""
    logger.warning("%s was renamed to %s; the old name works only in this version.", old, new)


def renamed(given: Any, names: Mapping[str, str], block: str) -> Any:
    """Parameters with their new names in place of those of the version before.

    ``names``: old -> new name. An old key was written by the user, so it overrides the new one,
    which may come from conf/base.
    """
    old = {name: new for name, new in names.items() if isinstance(given, Mapping) and name in given}
    if not old:
        return given
    for name, new in old.items():
        warn_renamed(f"{block}.{name}", f"{block}.{new}")
    rest = {key: value for key, value in given.items() if key not in old}
    return rest | {new: given[name] for name, new in old.items()}


def file_name(value: str) -> str:
    """``value``, which files are named after; a ValueError if it could leave their folder."""
    if not value.strip() or value.startswith(".") or set(value) & set("/\\\0"):
        raise ValueError(
            f"{value!r} becomes part of a file's name: no slash in it, no dot before it"
        )
    return value


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with ``changes`` in their place, key by key inside blocks that both have."""
    found = dict(values)
    for key, change in changes.items():
        value = found.get(key)
        if isinstance(value, Mapping) and isinstance(change, Mapping):
            change = merged(value, change)
        found[key] = change
    return found


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
        return type(self).model_validate(merged(self.model_dump(), changes))


class RootParams(_Readable, RootModel[T], Generic[T]):
    """A block of parameters that is a mapping or a list rather than fixed fields."""

    model_config = ConfigDict(frozen=True)


def _sentence(model: type[BaseModel], error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    message = described(model, error)
    return f"{key}: {message}" if key else message


def described(model: type[BaseModel], error: Any) -> str:
    """One of pydantic's errors about ``model`` in words, without the key."""
    given = error["input"]
    match error["type"]:
        case "extra_forbidden" if error["loc"][-1] in PLACES:
            return (
                "parameters no longer name output paths: set them in the catalog "
                "(conf/*/catalog*.yml), or move all of them with `data` in globals.yml"
            )
        case "extra_forbidden":
            name, known = error["loc"][-1], field_names(model)
            hint = did_you_mean(name, known)
            if name in known:  # of another member of a union, as a strategy's of another strategy
                hint = f": {' '.join(map(str, error['loc'][-2:-1]))} has no {name}, others have"
            return f"there is no such parameter{hint}"
        case "union_tag_invalid":
            kinds = re.findall("'(.*?)'", error["ctx"]["expected_tags"])
            tag = error["ctx"]["tag"]
            return f"there is no {tag!r}{did_you_mean(tag, kinds)}; there are {', '.join(kinds)}"
        case "missing":
            return "is missing, and has no default"
        case "model_type" | "dict_type":
            kind = "a list" if isinstance(given, list) else repr(given)
            return f"a block of keys with values is needed here, not {kind}"
        case "list_type" | "tuple_type":
            single = "" if isinstance(given, dict) or given is None else f", as [{given}]"
            return f"a list is needed here{single}, not {given!r}"
        case "int_parsing" | "int_type" | "int_from_float":
            return f"a whole number is needed here, not {given!r}"
        case "float_parsing" | "float_type":
            return f"a number is needed here, not {given!r}"
        case "bool_parsing" | "bool_type":
            return f"true or false is needed here, not {given!r}"
    said = str(error["msg"]).removeprefix("Value error, ")
    shown = isinstance(given, dict | list) or said.endswith(f"got {given!r}")
    return said if shown else f"{said}, not {given!r}"


def did_you_mean(name: object, known: Collection[str]) -> str:
    """A hint at the nearest of the names ``known``; empty when none is near."""
    near = difflib.get_close_matches(str(name), known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def field_names(model: type[BaseModel]) -> set[str]:
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
