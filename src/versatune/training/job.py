"""What one training is: everything a process needs to know to take part in it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from versatune.artifacts import FolderRef
from versatune.modeling.checkpoints import CheckpointRef
from versatune.training.config import TrainParams

CHECKPOINTS = "checkpoints"
HISTORY = "history.json"
EVENTS = "metrics.jsonl"
FAILURE = "failure.txt"

ROW_CHOICE = 2
"""Stands for how :func:`versatune.modeling.heldout.chosen_rows` draws."""

Event = dict[str, Any]
"""``round``, ``step`` and ``metrics``: names such as ``validation_loss/law`` to numbers."""

OnRound = Callable[[Event], None]
"""Told of each round as it ends."""


class Job(BaseModel):
    """A training in a folder; travels to other processes as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: FolderRef
    base: CheckpointRef
    params: TrainParams
    folder: Path
    key: Literal["train", "references"] = "train"
    """Where a person has written the parameters; messages name it."""
    initial_weights: dict[str, float] | None = None
    reference_losses: dict[str, float] | None = None
    detected_shares: dict[str, float] | None = None
    law: dict[str, Any] | None = None
    """Slopes measured with the references; given to strategies that use them alone."""
    only: str | None = None
    """Train and measure on this domain alone, as if the store had no other."""
    patience: int | None = None
    """End after so many rounds without a new best."""
    all_at: tuple[int, ...] = ()
    """With ``only``: after these rounds (0: the base model) the other domains are measured too."""
    keeps: bool = True
    """Whether there are checkpoints and a trained model, or the history alone."""

    def inputs(self) -> dict[str, Any]:
        """All that decides the result."""
        inputs: dict[str, Any] = {
            "store": self.store.fingerprint,
            "base": self.base.fingerprint,
            "train": self.params.deciding(),
            "initial_weights": self.initial_weights,
            "reference_losses": self.reference_losses,
            "detected_shares": self.detected_shares,
            "only": self.only,
            "patience": self.patience,
        }
        if self.law is not None:
            inputs["law"] = self.law
        if self.all_at:
            inputs["all_at"] = self.all_at
        # A trained model stays what it is; a reference is nothing but the loss of its rows.
        return inputs if self.keeps else {**inputs, "row_choice": ROW_CHOICE}
