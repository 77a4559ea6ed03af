"""What happens when the probe's own checks fail: its shares do not start a training."""

from collections.abc import Mapping
from typing import Any, Literal

from versatune.errors import VersatuneError
from versatune.mixing.config import (
    ConstantParams,
    InverseParams,
    ProportionalParams,
    StaticParams,
    StrategyParams,
    UniformParams,
)

OnDoubt = Literal["proportional", "uniform", "keep", "stop"]
"""What starts a training instead of doubtful shares; ``keep`` takes them all the same, ``stop``
ends the run."""


def doubts(knowledge: Mapping[str, Any]) -> dict[str, str]:
    """The checks that a knowledge distribution failed, each with its sentence; empty: none."""
    return dict(knowledge.get("doubts", {}))


def told(failed: Mapping[str, str]) -> str:
    """The checks that failed, sentence by sentence."""
    return " ".join(text[:1].upper() + text[1:] for text in failed.values())


def trusted_strategy(
    asked: StaticParams, failed: Mapping[str, str], on_doubt: OnDoubt, key: str
) -> StaticParams:
    """``asked``, or what stands in its place because the checks it rests on ``failed``.

    ``key``: the parameter that ``on_doubt`` was given in, for the message. Raises VersatuneError
    when it says ``stop``.
    """
    if not failed or not isinstance(asked, ConstantParams | InverseParams) or on_doubt == "keep":
        return asked
    if on_doubt == "stop":
        raise VersatuneError(stopped(failed, key))
    return UniformParams() if on_doubt == "uniform" else ProportionalParams()


def detected_shares(
    knowledge: Mapping[str, Any], mixture: Mapping[str, Any], *strategies: StrategyParams
) -> dict[str, float] | None:
    """The probe's shares by domain for training; None when they are in doubt.

    ``mixture``: the initial mixture, which says what is to follow from doubt. Raises
    VersatuneError when that is ``stop`` and one of the ``strategies`` starts from these shares.
    """
    failed = doubts(knowledge)
    on_doubt = mixture.get("on_doubt", "proportional")
    if not failed or on_doubt == "keep":
        return {name: float(entry["share"]) for name, entry in knowledge["domains"].items()}
    if on_doubt == "stop" and any(isinstance(s, InverseParams) for s in strategies):
        raise VersatuneError(stopped(failed, "mixture.on_doubt"))
    return None


def doubt_words(knowledge: Mapping[str, Any] | None, mixture: Mapping[str, Any]) -> dict[str, Any]:
    """What :mod:`versatune.mixing.origins` has to know of the probe and its checks."""
    known = knowledge or {}
    return {
        "probed": "source" not in known,
        "doubt": mixture.get("on_doubt", "proportional") if doubts(known) else None,
        "asked": mixture.get("asked"),
    }


def stopped(failed: Mapping[str, str], key: str) -> str:
    """The message of a run that doubt ends."""
    return (
        f"{key} is 'stop', and the probe failed its own checks: {told(failed)} "
        f"Fix that, or set {key} to proportional, uniform or keep."
    )
