"""Domain names: the one place that settles how a domain is spelled."""

import difflib
import re
from collections.abc import Iterable

from versatune.errors import VersatuneError

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

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def canonical(name: str) -> str:
    """The settled spelling of a domain name: lower case, underscores, aliases resolved.

    Names beyond the paper's six are allowed, so that a user can add a domain.
    Raises VersatuneError on a name that can't be a domain (it becomes part of file names).
    """
    key = re.sub(r"[\s-]+", "_", str(name).strip().lower())
    key = ALIASES.get(key, key)
    if not _NAME.fullmatch(key):
        raise VersatuneError(
            f"{name!r} can't be a domain name: use a letter first, then letters, digits and _."
        )
    return key


def choose(name: str, known: Iterable[str], where: str) -> str:
    """The canonical form of ``name`` if it is one of ``known``, else a VersatuneError.

    ``where`` names the key or file the name was read from, for the message.
    """
    known = list(known)
    key = canonical(name)
    if key in known:
        return key
    close = difflib.get_close_matches(key, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise VersatuneError(
        f"{where}: there is no domain {name!r}; the domains are {', '.join(known)}.{hint}"
    )
