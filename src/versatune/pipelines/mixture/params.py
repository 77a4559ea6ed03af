"""Parameters of the mixture pipeline."""

from pydantic import Field

from versatune.mixing.config import ConstantParams, StaticParams, Unit
from versatune.mixing.doubt import OnDoubt
from versatune.params import Params


class MixtureParams(Params):
    """The shares training starts with. Top-level key ``mixture``."""

    strategy: StaticParams = ConstantParams()
    """How they are computed; ``constant`` uses the detected shares unchanged."""
    on_doubt: OnDoubt = "proportional"
    """What starts a training when the probe fails its own checks (``doubts`` in the knowledge
    distribution): shares by the data, ``uniform`` ones, the probe's anyway (``keep``), or none
    (``stop``). Shares that don't come from the probe are unchanged."""
    unit: Unit = "supervised_tokens"
    """The unit of shares, as in ``train.unit``."""
    floor: float = Field(0.01, ge=0, lt=1)
    """The smallest share at the start, unless custom weights are lower. A share of 0 would stay 0
    under every multiplicative rule, and a small sample can miss a domain."""
