"""Parameters of the round planner."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from versatune.domains import by_domain
from versatune.params import Params


class PlanParams(Params):
    """How a round's rows are chosen and packed."""

    max_length: int = Field(1024, ge=1)
    """Tokens in a packed row; no example may be longer."""
    packing: bool = True
    """Whether several examples share a row; else each row is one example."""
    lookahead: int = Field(64, ge=1)
    """How many rows of a domain are at hand to find one that fits; 1 keeps each pass's order."""
    epoch_cap: float | dict[str, float] | None = None
    """How many times a domain's rows may be seen in training: one number for all domains, a
    number by domain (the others are free), or null for no limit."""
    on_exhausted: Literal["repeat", "redistribute", "stop"] = "repeat"
    """When a domain reaches its cap: ``repeat`` continues with a warning, ``redistribute`` gives
    its share to the others in proportion, ``stop`` ends with an error."""

    @field_validator("epoch_cap")
    @classmethod
    def _names(cls, cap: float | dict[str, float] | None) -> float | dict[str, float] | None:
        return by_domain(cap) if isinstance(cap, dict) else cap

    @model_validator(mode="after")
    def _caps_are_positive(self) -> Self:
        caps = self.epoch_cap if isinstance(self.epoch_cap, dict) else {"": self.epoch_cap or 1.0}
        if min(caps.values(), default=1.0) <= 0 or self.epoch_cap == 0:
            raise ValueError("epoch_cap must be above 0")
        return self
