"""Training as a piece of work, and as a library call that makes it in a folder."""

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from versatune.artifacts import INPUTS, MANIFEST, FolderRef, differences, read_json
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import CheckpointRef
from versatune.training.config import TrainParams
from versatune.training.job import CHECKPOINTS, HISTORY, OnRound, OnStep, Training, losses_of
from versatune.training.launch import launch
from versatune.work import Piece, make_folder


@dataclass(frozen=True)
class TrainResult:
    """A finished training."""

    model_ref: FolderRef
    """The Hugging Face folder; metadata: rounds, steps, why it ended, the last losses."""
    history: pd.DataFrame
    """A row a round and domain: the columns of `mixture_history`."""


def train(
    store: FolderRef,
    base: CheckpointRef,
    params: TrainParams,
    *,
    initial_weights: dict[str, float] | None = None,
    reference_losses: dict[str, float] | None = None,
    detected_shares: dict[str, float] | None = None,
    traces: dict[str, Any] | None = None,
    folder: Path,
    on_round: OnRound | None = None,
    on_step: OnStep | None = None,
) -> TrainResult:
    """Train ``base`` on ``store`` in ``folder``, or continue an unfinished training there.

    ``initial_weights`` P(0), ``detected_shares`` and ``reference_losses`` (held-out nats per
    token of the model that is trained) are by domain; a strategy that lacks one it needs raises.
    ``traces``: losses and shares of earlier runs (:func:`versatune.mixing.traces.traces_of`), for
    strategies that learn from them.
    ``on_round`` gets a dict a round: ``round``, ``step``, ``metrics`` (``loss/law``
    and so on); those of rounds an earlier run finished come first. ``on_step`` gets one every
    ``logging_steps``: ``step`` and ``metrics`` (:data:`versatune.training.job.OnStep`).

    A finished folder with the same inputs is returned at once; an unfinished one is continued from
    its last checkpoint. With other inputs a finished one is kept as
    ``<folder>.previous`` and training starts over; ``params.resume: restart`` starts over
    whether it was finished or not, and keeps nothing. Raises VersatuneError when the folder
    holds an unfinished training with other inputs, when another process works in it, when the
    disk is too small, and when the loss is not finite or explodes.
    """
    training = Training(
        store=store,
        base=base,
        params=params,
        initial_weights=initial_weights,
        reference_losses=reference_losses,
        detected_shares=detected_shares,
        traces=traces if params.strategy.uses_law else None,
    )
    ref = make_folder(piece_of(training, on_round, on_step), folder)
    return TrainResult(ref, history(ref.path))


def piece_of(
    training: Training, on_round: OnRound | None = None, on_step: OnStep | None = None
) -> Piece:
    """A training as a piece of work: the model, its history and, meanwhile, checkpoints."""
    return Piece(
        inputs=training.inputs(),
        make=partial(_train_in, training, on_round, on_step),
        on_change="replace" if training.params.resume == "restart" else "keep",
        advice=GO_ON,
    )


GO_ON = "Restore them to continue it, or discard it with train.resume: restart."


def _train_in(
    training: Training, on_round: OnRound | None, on_step: OnStep | None, folder: Path
) -> dict[str, Any]:
    """Train in this process, or in as many as are asked for."""
    job = training.in_folder(folder)
    if job.params.launcher.processes > 1 or job.params.launcher.config_file:
        launch(job, on_round, on_step)
    else:
        from versatune.training.run import run

        run(job, on_round, on_step)
    if job.save_model:
        from versatune.training.saved import check_saved

        if job.params.may_interpolate:
            from versatune.training.interpolation import interpolate

            interpolate(job)
        # Checkpoints are deleted only when their model is known to be saved.
        check_saved(job)
        shutil.rmtree(folder / CHECKPOINTS)
    return _metadata(read_json(folder / HISTORY))


def refuse_changed(params: TrainParams, folder: Path) -> None:
    """Raise VersatuneError when there is an unfinished training with other parameters.

    Only by the parameters, so it can be asked before the data and the base model are there.
    """
    begun = folder / INPUTS
    if params.resume == "restart" or not begun.is_file() or (folder / MANIFEST).is_file():
        return
    found, wanted = read_json(begun).get("train"), params.fingerprint_fields()
    if found != wanted:
        raise VersatuneError(
            f"{folder} holds an unfinished training with other parameters: "
            f"{', '.join(differences(found, wanted, 'train.'))}. {GO_ON}"
        )


def history(folder: Path) -> pd.DataFrame:
    """The `mixture_history` of a finished training."""
    return pd.DataFrame(read_json(folder / HISTORY)["rows"])


def _metadata(record: dict[str, Any]) -> dict[str, Any]:
    last = record["rows"][-1]
    between = record.get("interpolation")
    return {
        "rounds": last["round"],
        "steps": last["step"],
        "ended": record["ended"],
        "device": record["device"],
        "peak_memory_bytes": record["peak_memory_bytes"],
        "validation_loss": losses_of(record["rows"], last["round"]),
        **({} if between is None else {"interpolation": between}),
    }
