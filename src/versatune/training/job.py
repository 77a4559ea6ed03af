"""The description of one training: everything that a process needs to take part in it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from versatune.artifacts import FolderRef
from versatune.data.row_choice import ROW_CHOICE
from versatune.data.store import Split, TokenizedSplit
from versatune.modeling.checkpoints import CheckpointRef
from versatune.training.config import TrainParams

CHECKPOINTS = "checkpoints"
HISTORY = "history.json"
EVENTS = "metrics.jsonl"
STEPS = "steps.jsonl"
FAILURE = "failure.txt"

Event = dict[str, Any]
"""``round``, ``step`` and ``metrics``: names such as ``loss/law`` to numbers."""

OnRound = Callable[[Event], None]
"""Called at the end of each round."""

OnStep = Callable[[Event], None]
"""Called every ``logging_steps``: ``step`` and ``metrics`` (loss, learning_rate, grad_norm,
tokens_per_second, mfu, peak_memory_gb; those that are known)."""


class MixtureInputs(BaseModel):
    """What is known before training, by domain name; None where nothing is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    initial_weights: dict[str, float] | None = None
    reference_losses: dict[str, float] | None = None
    """Held-out nats per token, in tokens of the model that is trained."""
    detected_shares: dict[str, float] | None = None
    """None also where the probe failed its own checks."""
    traces: dict[str, Any] | None = None
    """Losses and shares of earlier runs (:func:`versatune.mixing.traces.traces_of`); only
    strategies that learn from them use these."""


class Training(MixtureInputs):
    """A training, independent of its folder."""

    store: FolderRef
    base: CheckpointRef
    params: TrainParams
    key: Literal["train", "references.train"] = "train"
    """Where a person has written the parameters; messages name it."""
    domain: str | None = None
    """Train and measure only on this domain, as if the store had no other."""
    patience: int | None = None
    """End after this many rounds without a new best."""
    all_at: tuple[int, ...] = ()
    """With ``domain``: after these rounds (0: the base model) the others are measured too."""
    save_model: bool = True
    """Whether there are checkpoints and a trained model, or only the history."""

    def inputs(self) -> dict[str, Any]:
        """Everything that decides the result."""
        inputs: dict[str, Any] = {
            "store": self.store.fingerprint,
            "base": self.base.fingerprint,
            "train": self.params.fingerprint_fields(),
            "initial_weights": self.initial_weights,
            "reference_losses": self.reference_losses,
            "detected_shares": self.detected_shares,
            "only": self.domain,
            "patience": self.patience,
        }
        if self.traces is not None:
            inputs["traces"] = self.traces
        if self.all_at:
            inputs["all_at"] = self.all_at
        # Of a reference only its losses count, not its model.
        return inputs if self.save_model else {**inputs, "row_choice": ROW_CHOICE}

    def in_folder(self, folder: Path) -> "Job":
        """This training in a folder."""
        return Job.model_validate({**dict(self), "folder": folder})


class Job(Training):
    """A training in a folder; travels to other processes as JSON."""

    folder: Path


def losses_of(rows: list[dict[str, Any]], number: int) -> dict[str, float]:
    """Held-out losses by domain after round ``number``, from the rows of a history."""
    return {row["domain"]: row["validation_loss"] for row in rows if row["round"] == number}


def job_split(job: Job, name: Split) -> TokenizedSplit:
    """The rows of a split that a job trains or measures on."""
    split = TokenizedSplit.load(job.store, name)
    if job.domain is None:
        return split
    at = split.domains.index(job.domain)
    stop = int(split.starts[at + 1])
    return dataclasses.replace(
        split,
        domains=(job.domain,),
        starts=split.starts[at : at + 2],
        lengths=split.lengths[:stop],
        supervised=split.supervised[:stop],
        n_bytes=split.n_bytes[:stop],
    )
