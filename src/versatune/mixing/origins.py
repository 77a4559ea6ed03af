"""Where shares come from, in words: what the log and the report say of a strategy."""

from collections.abc import Mapping
from typing import Any

OWN = {
    "uniform": "the same for every domain",
    "proportional": "those of the data",
    "custom": "set by hand",
    "doremi": "the same for every domain",
    "odm": "the same for every domain",
}
"""Strategies whose first shares are their own, whatever the probe found."""

INITIAL = "those of the initial mixture"

FIXED = ("uniform", "proportional", "inverse", "constant", "custom")

FORECAST = ", unless others are forecast to end better"
"""Of strategies that start from runs on mixes, where there were some."""

OF_PROBE = ("constant", "inverse")
"""Ways to start that take the probe's shares."""


def shares_in_words(
    strategy: Mapping[str, Any],
    initial: str | None,
    *,
    probed: bool = True,
    doubt: str | None = None,
    asked: str | None = None,
) -> str:
    """How training chose its shares, without a full stop.

    ``strategy``: the parameters of training's strategy, at least ``name``; ``initial``: the name of
    the strategy that made the initial mixture (None: not known); ``probed``: whether the knowledge
    distribution is of a probe, and not one that was published; ``doubt``: where the probe failed
    its own checks, what ``mixture.on_doubt`` says; ``asked``: the strategy in whose place
    ``initial`` stands because of that.
    """
    name = str(strategy.get("name", "uniform"))
    start = start_in_words(strategy, initial, probed=probed, doubt=doubt, asked=asked)
    if name in FIXED:
        return f"shares: {start}, fixed (strategy {name})"
    given = strategy.get("target") or []
    names = [given] if isinstance(given, str) else given
    target = f" towards {', '.join(names)}" if names else ""
    return f"strategy {name}{target}; starting shares: {start}"


def follows_probe(
    strategy: Mapping[str, Any],
    initial: str | None,
    *,
    doubt: str | None = None,
    asked: str | None = None,
    **_: Any,
) -> bool:
    """Whether the first shares come from what the probe found; arguments as above."""
    if doubt not in (None, "keep") and (asked in OF_PROBE or strategy.get("name") == "inverse"):
        return False
    start = start_in_words(strategy, initial)
    return "the probe" in start or start == INITIAL


def start_in_words(
    strategy: Mapping[str, Any],
    initial: str | None,
    *,
    probed: bool = True,
    doubt: str | None = None,
    asked: str | None = None,
) -> str:
    """Where the first shares come from; arguments as in :func:`shares_in_words`."""
    name = strategy.get("name")
    detected = "those the probe found" if probed else "those of a published distribution"
    if doubt == "keep":
        detected += ", although it failed its own checks"
    replaced = ", since the probe failed its own checks" if doubt not in (None, "keep") else ""
    if name in OWN:
        return OWN[name]
    if name == "inverse":
        if replaced:
            return OWN.get(initial or "", INITIAL) + replaced
        return f"the inverse of {detected}"
    if name == "expand" and strategy.get("rule") == "constrained":
        share = strategy["target_share"]["start"]
        return f"{OWN['proportional']}, but for the targets' {share:g}{FORECAST}"
    own = OWN.get(str(strategy.get("stay", strategy.get("start", strategy.get("starts_from")))))
    if own is not None and name == "mixing_law":
        return f"{own}{FORECAST}"
    if own is not None:
        return own
    if initial == "constant":
        return detected
    if initial == "inverse":
        return f"the inverse of {detected}"
    return OWN.get(initial or "", INITIAL) + (replaced if asked in OF_PROBE else "")
