"""The base model's losses before training are of the rows that training measures."""

from pathlib import Path

import pytest

from versatune.artifacts import FolderRef
from versatune.data.store import TokenizedSplit
from versatune.modeling.checkpoints import CheckpointRef, load_model
from versatune.modeling.heldout import heldout_losses
from versatune.training import ReferenceParams, TrainParams
from versatune.training.base_losses import base_losses
from versatune.work import make_folder


def test_losses_are_of_the_rows_that_training_measures(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    train = TrainParams(heldout_rows_per_domain=2, heldout_tokens_per_domain=100)
    piece = base_losses(tiny_store, tiny_checkpoint, train, ReferenceParams(mode="mixes"))
    made = make_folder(piece, tmp_path / "made")
    expected = heldout_losses(
        load_model(tiny_checkpoint),
        TokenizedSplit.load(tiny_store, "steering"),
        rows_per_domain=2,
        tokens_per_domain=100,
        batch_tokens=500,
        progress=False,
    )
    assert min(one.n_rows for one in expected.values()) > 2
    for name, one in expected.items():
        assert made.metadata["losses"][name] == pytest.approx(one.nats_per_token, rel=1e-5)
    fewer = train.model_copy(update={"heldout_tokens_per_domain": None})
    other = base_losses(tiny_store, tiny_checkpoint, fewer, ReferenceParams(mode="mixes"))
    assert other.inputs != piece.inputs
