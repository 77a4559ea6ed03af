"""Parameters of scheduled retraining."""

from typing import Literal

from pydantic import Field, field_validator

from versatune.domains import by_domain
from versatune.mixing.config import FosterParams, StrategyParams
from versatune.mixing.doubt import OnDoubt
from versatune.params import Params

Metric = Literal["heldout_loss", "accuracy"]
Evidence = Literal["interval", "estimate"]


class LimitParams(Params):
    """How much a domain may get worse in one metric."""

    tolerance: float = Field(ge=0)
    """Largest allowed fall of a domain: a part of the loss (0.02: two per cent), or points of
    accuracy (0.05: five of a hundred items)."""
    evidence: Evidence = "interval"
    """`interval`: the 95 % interval must rule out a larger fall; `estimate`: the measured value
    decides, for files with too few items to rule anything out."""
    domains: dict[str, float] = Field(default={})
    """Other tolerances for single domains."""

    _names = field_validator("domains")(by_domain)


class PromotionParams(Params):
    """When a challenger becomes champion."""

    improve: Metric = "heldout_loss"
    """The mean of this over the domains must improve: `heldout_loss` as `train.objective` declares,
    by part of the champion's; `accuracy` by points."""
    evidence: Evidence = "interval"
    """`interval`: the 95 % interval of the improvement must lie above 0; `estimate`: the
    measured value must."""
    limits: dict[Metric, LimitParams] = Field(
        default={
            "heldout_loss": LimitParams(tolerance=0.02),
            "accuracy": LimitParams(tolerance=0.1, evidence="estimate"),
        }
    )
    """How much a domain may get worse, by metric. A metric that is left out is measured and
    reported, but blocks no promotion."""


class RetrainParams(Params):
    """Scheduled retraining: a challenger from new data, and the promotion rule."""

    model_name: str = Field(default="versatune", pattern=r"^[^/:'\"`]+$")
    """The model's name in the MLflow Model Registry, without slash, colon and quotes."""
    start_from: Literal["champion", "base"] = "champion"
    """The model that a challenger is trained from. Without a champion it is the base model."""
    initial: Literal["detected", "proportional", "uniform"] = "proportional"
    """Shares of the first round: `detected` takes the probe's, `proportional` follows the amount
    of data."""
    on_doubt: OnDoubt = "proportional"
    """What replaces detected shares when the probe fails its own checks, as in
    ``mixture.on_doubt``."""
    strategy: StrategyParams = FosterParams(potential_source="progress", sigma=2.0)
    """How the shares follow the losses. The default needs no reference losses, which would have
    to be measured again for the data of every retraining."""
    rounds: int | None = Field(default=None, ge=1)
    """Rounds of a retraining; null takes that of `train`."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Peak learning rate; null takes that of `train`."""
    heldout_rows_per_domain: int | None = Field(default=256, ge=2)
    """Held-out rows a domain on which both models are measured; null takes all."""
    promotion: PromotionParams = PromotionParams()
    """When a challenger becomes champion."""
    keep_last: int = Field(default=2, ge=0)
    """Challengers whose files are kept besides those of the champion and the previous champion.
    Numbers and reasons of all are kept."""
    example: str = "What is the boiling point of water?"
    """The input example stored with the model."""
