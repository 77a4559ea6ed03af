"""Domain names: the one place that decides how a domain is spelled."""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

from versatune.errors import VersatuneError

T = TypeVar("T")

ALIASES = {
    "legal": "law",
    "medical": "medicine",
    "med": "medicine",
    "biomedical": "medicine",
    "health": "medicine",
    "financial": "finance",
    "fin": "finance",
    "sci": "science",
    "scientific": "science",
    "programming": "code",
    "coding": "code",
    "general": "other",
    "general_knowledge": "other",
    "misc": "other",
}
"""Other spellings of the paper's six domains."""

RESERVED = {
    "all": "tables use it for the row over all domains",
    "mean": "metrics use it for the mean over all domains (`loss/mean`)",
    "base": "tables and metrics use it for the base model",
    "tuned": "tables and metrics use it for the trained model",
    "held_out": "tables use it for the held-out rows",
    "tokenized": "a folder beside those of the domains has this name",
}
"""Names that no domain can have, and why."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")

LONGEST = 60
"""Characters of a name: it becomes part of file names and metrics, which have their own limits."""


def canonical(name: str) -> str:
    """The settled spelling of a domain name: lower case, underscores, aliases resolved.

    Names beyond the paper's six are allowed, so that a user can add a domain.
    Raises VersatuneError on a name that can't be a domain (it becomes part of file names, and must
    not be in :data:`RESERVED`).
    """
    key = re.sub(r"[\s-]+", "_", str(name).strip().lower())
    key = ALIASES.get(key, key)
    if not _NAME.fullmatch(key):
        raise VersatuneError(
            f"{name!r} can't be a domain name: use a letter first, then letters, digits and _."
        )
    if len(key) > LONGEST:
        raise VersatuneError(
            f"{key[:LONGEST]!r}... can't be a domain name: it has {len(key)} characters, and "
            f"{LONGEST} are the most. Choose a shorter one; the description may be long."
        )
    if key in RESERVED:
        raise VersatuneError(
            f"{name!r} can't be a domain name: {RESERVED[key]}. Choose another name."
        )
    return key


def by_domain(values: Mapping[str, T]) -> dict[str, T]:
    """``values`` by canonical name. Raises ValueError when two names are the same domain."""
    written: dict[str, str] = {}
    for name in values:
        try:
            key = canonical(name)
        except VersatuneError as error:
            raise ValueError(str(error)) from None
        if key in written:
            raise ValueError(f"{written[key]!r} and {name!r} are the same domain, {key!r}")
        written[key] = name
    return {key: values[name] for key, name in written.items()}


def unknown(name: str, known: Collection[str]) -> str | None:
    """The error when ``name`` is not one of the domains ``known``; None when it is."""
    key = canonical(name)
    if key in known:
        return None
    close = difflib.get_close_matches(key, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"there is no domain {name!r}; the domains are {', '.join(known)}.{hint}"


def choose(name: str, known: Iterable[str], where: str) -> str:
    """The canonical form of ``name`` if it is one of ``known``, else a VersatuneError.

    ``where`` names the key or file the name was read from, for the message.
    """
    problem = unknown(name, known := list(known))
    if problem:
        raise VersatuneError(f"{where}: {problem}")
    return canonical(name)
