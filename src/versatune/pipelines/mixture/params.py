"""Parameters of the mixture pipeline."""

from pydantic import Field

from versatune.mixing.config import ConstantParams, StaticParams, Unit
from versatune.mixing.doubt import OnDoubt
from versatune.params import Params


class MixtureParams(Params):
    """The shares training starts with. Top-level key ``mixture``."""

    strategy: StaticParams = ConstantParams()
    """How they are found; ``constant`` takes the detected shares as they are."""
    on_doubt: OnDoubt = "proportional"
    """What starts a training when the probe fails its own checks (``doubts`` in the knowledge
    distribution): shares by the data, ``uniform`` ones, the probe's all the same (``keep``), or
    nothing (``stop``). Shares that are not the probe's stay as they are."""
    unit: Unit = "supervised_tokens"
    """What a share is a share of, as in ``train.unit``."""
    floor: float = Field(0.01, ge=0, lt=1)
    """No domain starts with less, unless custom weights say so: a share that is 0 stays 0 under
    every rule that multiplies, and a small sample can detect 0 of what is there."""
