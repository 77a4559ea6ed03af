"""The base of every parameter model."""

from pydantic import BaseModel, ConfigDict


class Params(BaseModel):
    """A block of parameters: unknown keys are refused, values are validated, nothing changes it.

    Subclasses document each field with a docstring below it; the parameter reference in the
    README is made from these.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
