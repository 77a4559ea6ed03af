"""Parameters of what is minimised, and of how the strategies that forecast learn and move."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from versatune.domains import by_domain
from versatune.params import Params

Kind = Literal["mean", "relative", "worst", "weighted"]
"""What is minimised: see :class:`ObjectiveParams`."""


class InStderrs(Params):
    """A tolerance in standard errors of the paired change since the base model."""

    stderrs: float = Field(ge=0)
    """Standard errors by which a domain may end above the base model's loss."""


Allowance = Annotated[float, Field(ge=0)] | InStderrs


class ObjectiveParams(Params):
    """What training is to minimise, and how much of the other domains it may cost."""

    kind: Kind = "mean"
    """``mean``: the mean held-out loss over domains; ``relative``: the mean of losses as parts of
    the base model's; ``worst``: the largest gap to the references, (loss - reference) / loss, so
    that no domain is left behind; ``weighted``: the mean by ``weights``."""
    weights: dict[str, float] | None = None
    """How much each domain counts with kind ``weighted``; not negative, need not sum to 1."""
    tolerance: Allowance | dict[str, Allowance] = Field(0.0, union_mode="left_to_right")
    """How far a domain may end above the base model's loss: a part of that loss, or ``{stderrs:
    2}``; one for all domains, or by domain (0 for those not named)."""

    @field_validator("tolerance", mode="before")
    @classmethod
    def _is_a_tolerance(cls, value: object) -> object:
        by_domain = value if isinstance(value, dict) and set(value) != {"stderrs"} else {"": value}
        for name, one in by_domain.items():
            number = one.get("stderrs") if isinstance(one, dict) and len(one) == 1 else one
            if isinstance(one, InStderrs):
                continue
            if isinstance(number, bool) or not isinstance(number, int | float) or not number >= 0:
                where = f" of {name}" if name else ""
                raise ValueError(
                    f"tolerance{where} must be a part of the base model's loss (0 or more), or "
                    f"{{stderrs: 0 or more}}, or one of these by domain; got {one!r}"
                )
        return value

    @field_validator("weights", "tolerance", mode="after")
    @classmethod
    def _names(cls, value: Any) -> Any:
        return by_domain(value) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _weights_go_with_weighted(self) -> Self:
        if (self.kind == "weighted") != (self.weights is not None):
            raise ValueError(
                f"kind {self.kind!r} {'needs' if self.weights is None else 'takes no'} weights"
            )
        given = list((self.weights or {"": 1.0}).values())
        if not all(0 <= value < math.inf for value in given) or not any(given):
            raise ValueError(f"weights must be >= 0 and not all 0, got {given}")
        return self


class LawParams(Params):
    """How ``mixing_law``, and ``expand`` under constraints, learn what a share does."""

    caution: float = Field(1.0, ge=0)
    """Standard errors by which an expected gain must exceed 0 before shares leave those they stay
    at when nothing is known."""
    move: float = Field(0.7, gt=0, le=1)
    """How far, in logarithms of shares, an update between rounds goes towards the best shares."""
    misfit: float = Field(0.3, ge=0)
    """By what part of itself a change of a held-out loss may be off the law, besides noise."""


class TargetShareParams(Params):
    """Where the targets' share lies under ``rule: constrained``, all targets together."""

    start: float = Field(0.7, gt=0, lt=1)
    """The first round's, where no runs on mixes say better."""
    least: float = Field(0.4, ge=0, lt=1)
    """No round's is below."""
    most: float = Field(0.9, gt=0, le=1)
    """No round's is above."""
    floor: float = Field(0.01, ge=0, lt=1)
    """No domain's share falls below this: the first rows of a domain keep most of it."""
    others: float = Field(0.7, ge=0, le=1)
    """When training ends, each other domain gets at least this part of an equal share of what the
    targets leave (of its share of the data, where that is less), and at first all of it; in between
    in proportion to what is trained. Less only where the limits can't be met otherwise."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.least <= self.start <= self.most:
            raise ValueError(
                f"least {self.least:g} <= start {self.start:g} <= most {self.most:g} must hold"
            )
        return self
