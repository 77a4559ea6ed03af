"""The inputs of a mixture before its first round."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class MixtureInputs(BaseModel):
    """What is known before training, by domain name; None if unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    initial_weights: dict[str, float] | None = None
    reference_losses: dict[str, float] | None = None
    """Held-out nats per token, in tokens of the model that is trained."""
    detected_shares: dict[str, float] | None = None
    """None also if the probe failed its own checks."""
    traces: dict[str, Any] | None = None
    """Losses and shares of earlier runs (:func:`versatune.mixing.traces.traces_of`); only
    strategies that learn from them use these."""
