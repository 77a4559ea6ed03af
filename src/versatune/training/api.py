"""Training as a library call: `train` opens its folder, trains in it and seals it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from versatune.artifacts import (
    INPUTS,
    MANIFEST,
    FolderRef,
    WorkFolder,
    difference,
    exclusive,
    read_json,
)
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import CheckpointRef
from versatune.training.config import TrainParams
from versatune.training.job import HISTORY, Job, OnRound

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TrainResult:
    """A finished training."""

    model_ref: FolderRef
    """The Hugging Face folder; facts: rounds, steps, why it ended, the last losses."""
    history: "pd.DataFrame"
    """A row a round and domain: the columns of `mixture_history`."""


def train(
    store: FolderRef,
    base: CheckpointRef,
    params: TrainParams,
    *,
    initial_weights: Mapping[str, float] | None = None,
    reference_losses: Mapping[str, float] | None = None,
    detected_shares: Mapping[str, float] | None = None,
    law: Mapping[str, Any] | None = None,
    folder: Path,
    on_round: OnRound | None = None,
) -> TrainResult:
    """Train ``base`` on ``store`` in ``folder``, or go on with what was begun there.

    ``initial_weights`` P(0), ``detected_shares`` and ``reference_losses`` (held-out nats per
    token of the model that is trained) are by domain; a strategy that lacks one it needs raises.
    ``law``: slopes measured with the references (:func:`versatune.training.reference.law_facts`).
    ``on_round`` gets a dict a round: ``round``, ``step``, ``metrics`` (``validation_loss/law``
    and so on); those of rounds an earlier run finished come first.

    A finished folder with the same inputs is returned at once; an unfinished one is gone on
    with, exactly where its last checkpoint was. With other inputs a finished one is kept as
    ``<folder>.previous`` and training begins anew; ``params.resume: restart`` begins anew
    whether it was finished or not, and keeps nothing. Raises VersatuneError when the folder
    holds an unfinished training with other inputs, when another process works in it, when the
    disk is too small, and when the loss is not finite or explodes.
    """
    job = Job(
        store=store,
        base=base,
        params=params,
        folder=Path(folder),
        initial_weights=_plain(initial_weights),
        reference_losses=_plain(reference_losses),
        detected_shares=_plain(detected_shares),
        law=dict(law) if law is not None and params.strategy.uses_law else None,
    )
    return run_job(job, on_round)


def run_job(job: Job, on_round: OnRound | None = None) -> TrainResult:
    """Do a job in this process, or in as many as it asks for."""
    folder = job.folder
    with exclusive(folder.with_name(f".{folder.name}.lock"), f"training in {folder}"):
        restart = job.params.resume == "restart"
        work = WorkFolder.open(folder, job.inputs(), on_change="replace" if restart else "keep")
        if not work.complete:
            if job.params.launcher.processes > 1 or job.params.launcher.config_file:
                from versatune.training.launch import launch

                launch(job, on_round)
            else:
                from versatune.training.run import run

                run(job, on_round)
            work.seal(**_facts(read_json(folder / HISTORY)))
    return TrainResult(work.ref, history(work.ref.path))


def refuse_changed(params: TrainParams) -> None:
    """Raise VersatuneError when ``train`` would meet an unfinished training of other parameters.

    By the parameters alone, so it can be asked before the data and the base model are there.
    """
    begun = params.folder / INPUTS
    if params.resume == "restart" or not begun.is_file() or (params.folder / MANIFEST).is_file():
        return
    found, wanted = read_json(begun).get("train"), params.deciding()
    if found != wanted:
        raise VersatuneError(
            f"{params.folder} holds an unfinished training with other parameters: "
            f"{difference(found, wanted, 'train.')}. Set them back to go on with it, give up what "
            "is there with train.resume: restart, or choose another train.folder."
        )


def history(folder: Path) -> "pd.DataFrame":
    """The `mixture_history` of a finished training."""
    import pandas as pd

    return pd.DataFrame(read_json(folder / HISTORY)["rows"])


def _facts(record: dict[str, Any]) -> dict[str, Any]:
    last = record["rows"][-1]
    return {
        "rounds": last["round"],
        "steps": last["step"],
        "ended": record["ended"],
        "validation_loss": {
            row["domain"]: row["validation_loss"]
            for row in record["rows"]
            if row["round"] == last["round"]
        },
    }


def _plain(values: Mapping[str, float] | None) -> dict[str, float] | None:
    return None if values is None else {name: float(value) for name, value in values.items()}
