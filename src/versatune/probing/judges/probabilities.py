"""Probabilities of the domains, read from what a chat model writes."""

import json
import re
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from versatune.domains import canonical
from versatune.errors import VersatuneError

THOUGHTS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|channel|>analysis", "<|channel|>final<|message|>"),
)
"""How models mark a thought in their content, where the server does not put it beside."""


class Probabilities(BaseModel):
    """What a well-formed answer holds."""

    model_config = ConfigDict(strict=False)

    probabilities: dict[str, float] = Field(min_length=1)

    def vector(self, domains: Sequence[str]) -> list[float]:
        """Probabilities in the domains' order, summing to 1; ValueError when they can't be."""
        given = {canonical(name): value for name, value in self.probabilities.items()}
        unknown = given.keys() - set(domains)
        values = np.array([given.get(d, 0.0) for d in domains])
        if unknown or not np.isfinite(values).all() or (values < 0).any() or values.sum() <= 0:
            raise ValueError(f"no probabilities of the domains: {self.probabilities}")
        return [float(v) for v in values / values.sum()]


def parse(content: str, domains: Sequence[str], *, cut: bool = False) -> list[float]:
    """The probabilities in an answer, (k,) summing to 1. ValueError when there are none.

    Words around the object are allowed, so are a thought before it, percentages, other spellings
    of the domains and one object around another (``{"probabilities": {...}}``). ``cut``: the answer
    ended at the limit; then words before an object may be a thought that the prompt has begun.
    """
    content = _after_thought(content)
    begin, end = content.find("{"), content.rfind("}")
    if begin < 0 or end < begin:
        raise ValueError("no JSON object")
    if cut and not re.fullmatch(r"\s*(```\w*\s*)?", content[:begin]):
        raise ValueError("the answer may have ended within a thought")
    found = json.loads(content[begin : end + 1])
    if len(found) == 1 and isinstance(next(iter(found.values())), dict):
        found = next(iter(found.values()))
    try:
        return Probabilities(probabilities=found).vector(domains)
    except (ValidationError, VersatuneError) as error:
        raise ValueError(str(error)) from error


def _after_thought(content: str) -> str:
    for begin, end in THOUGHTS:
        if end in content:
            return content.rpartition(end)[2]
        if content.lstrip().startswith(begin):
            raise ValueError("a thought that does not end")
    return content
