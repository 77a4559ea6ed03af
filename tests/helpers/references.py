"""The references stage as its nodes run it, without a catalog."""

from pathlib import Path
from typing import Any

from versatune.artifacts import FolderRef
from versatune.modeling.checkpoints import CheckpointRef
from versatune.training import reference
from versatune.training.config import ReferenceParams, TrainParams
from versatune.work import make_folder


def measure_references(
    store: FolderRef, base: CheckpointRef, folder: Path, params: ReferenceParams, train: TrainParams
) -> dict[str, Any]:
    """``reference_losses``, with every domain's run made below ``folder``."""
    rows = make_folder(reference.reference_rows(store, base, params), folder / "rows")
    runs = {
        name: make_folder(piece, folder / name)
        for name, piece in reference.reference_runs(store, rows, base, params, train).items()
    }
    return reference.reference_losses(store, rows, base, params, train, runs)
