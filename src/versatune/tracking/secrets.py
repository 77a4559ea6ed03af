"""Parameters as text, with values masked that look like credentials."""

import re
from collections.abc import Mapping
from typing import Any

from versatune.artifacts import to_jsonable

MASK = "••••••"

_SECRET_KEY = re.compile(
    r"(^|[_.-])(api_?key|key|secret|token|password|passwd|pwd|credentials?|bearer|authorization)$",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(
    r"\b(sk-|hf_|gh[pousr]_|github_pat_|glpat-|xox[abp]-|AKIA|Bearer\s)[A-Za-z0-9_\-]{8,}"
)
_URL_PASSWORD = re.compile(r"(?<=://)[^/@\s]+@")


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings and models as one level, keys joined by dots."""
    value = to_jsonable(value)
    if isinstance(value, dict) and (value or not prefix):
        flat: dict[str, Any] = {}
        for key, inner in value.items():
            flat |= flatten(inner, f"{prefix}.{key}" if prefix else str(key))
        return flat
    return {prefix: value}


def masked(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Flattened parameters as text, with everything that looks like a credential masked.

    Masked are values whose key ends in a word such as ``token`` or ``password`` (at any level),
    values that look like the common kinds of access keys, and passwords inside URLs.
    """
    return {key: hide(key, _text(value)) for key, value in flatten(parameters).items()}


def hide(key: str, text: str) -> str:
    """The value of one parameter, masked where its key or itself looks like a credential."""
    secret = text and any(_SECRET_KEY.search(part) for part in key.split("."))
    return MASK if secret else without_keys(text)


def without_keys(text: str) -> str:
    """``text`` with access keys and passwords inside URLs masked."""
    return _URL_PASSWORD.sub(MASK + "@", _SECRET_VALUE.sub(MASK, text))


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_text(v) for v in value)
    if isinstance(value, Mapping) and value:
        return "; ".join(f"{k}: {v}" for k, v in masked(value).items())
    return "" if value is None or value == {} else str(value)
