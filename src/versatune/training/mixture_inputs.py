"""The inputs of a mixture before its first round."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class MixtureInputs:
    """What is known before training, by domain name; None where nothing is."""

    initial_weights: Mapping[str, float] | None = None
    detected_shares: Mapping[str, float] | None = None
    reference_losses: Mapping[str, float] | None = None
    """Held-out nats per token, in tokens of the model that is trained."""
    traces: Mapping[str, Any] | None = None
    """What runs before the training did (:func:`versatune.mixing.traces.traces_of`)."""
