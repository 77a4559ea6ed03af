"""The train pipeline by itself, on a hand-filled catalog and on the project's own entries."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from kedro.io import DataCatalog
from kedro.io.memory_dataset import MemoryDataset
from kedro.runner import SequentialRunner
from kedro_datasets.pandas import ParquetDataset

from tests.helpers.scaled_training import PARAMS, START
from versatune import tracking
from versatune.artifacts import FolderRef
from versatune.data.store import TokenizedSplit
from versatune.errors import VersatuneError
from versatune.io import FolderDataset
from versatune.modeling.checkpoints import CheckpointRef, load_model
from versatune.modeling.heldout import heldout_losses
from versatune.pipelines.train import create_pipeline
from versatune.pipelines.train.nodes import known_references, log_trained_model, train_model
from versatune.pipelines.train.params import TrackingParams
from versatune.reporting.tables import round_log
from versatune.training.api import train
from versatune.training.config import TrainParams
from versatune.work import WorkFolder

CONTRACT = {
    *("round", "step", "domain", "weight", "realised_share_rows", "realised_share_tokens"),
    *("realised_share_supervised_tokens", "epochs_seen", "train_loss", "validation_loss"),
    *("learnable_potential", "forgetting_degree"),
}


def test_every_output_has_a_catalog_entry_with_a_layer(project_root: Path) -> None:
    entries = yaml.safe_load((project_root / "conf/base/catalog_train.yml").read_text())
    for name in create_pipeline().all_outputs():
        assert entries[name]["metadata"]["kedro-viz"]["layer"], name


def test_shipped_parameters_are_valid(project_root: Path) -> None:
    for env in ("base", "test", "paper"):
        text = (project_root / f"conf/{env}/parameters_train.yml").read_text()
        values = yaml.safe_load(text.replace("${globals:seed}", "0"))["train"]
        TrainParams.model_validate(values)


def filled_catalog(
    store: FolderRef,
    base: CheckpointRef,
    share: dict[str, float],
    params: TrainParams,
    folder: Path,
) -> DataCatalog:
    """What the pipeline reads, and places below ``folder`` for what it writes."""
    return DataCatalog(
        {
            "training_rows": MemoryDataset(store),
            "base_model": MemoryDataset(base.model_dump(mode="json")),
            "initial_mixture": MemoryDataset({"weights": share, "unit": "supervised_tokens"}),
            "reference_losses": MemoryDataset(
                {
                    "mode": "measure",
                    "rows_per_domain": params.heldout_rows_per_domain,
                    "domains": {name: {"nats_per_token": 3.0} for name in share},
                }
            ),
            "knowledge_distribution": MemoryDataset(
                {"domains": {name: {"share": s} for name, s in share.items()}}
            ),
            "params:train": MemoryDataset(params),
            "params:tracking": MemoryDataset(TrackingParams()),
            "trained_model": FolderDataset(filepath=str(folder / "trained")),
            "mixture_history": ParquetDataset(filepath=str(folder / "history.parquet")),
        }
    )


def test_a_slice_run_trains_and_writes_the_contract(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    share = {"law": 0.2, "medicine": 0.3, "code": 0.5}
    params = TrainParams.model_validate(
        {
            "rounds": 2,
            "steps_per_round": 2,
            "max_length": 64,
            "per_device_train_batch_size": 2,
            "heldout_rows_per_domain": 3,
            "strategy": {"name": "foster"},
        }
    )
    catalog = filled_catalog(tiny_store, tiny_checkpoint, share, params, tmp_path)
    SequentialRunner().run(create_pipeline(), catalog)
    written = pd.read_parquet(tmp_path / "history.parquet")
    assert written.columns.is_unique and set(written.columns) >= CONTRACT
    assert written.groupby("round")["weight"].sum().tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert list(written["domain"][:3]) == ["law", "medicine", "code"]
    assert catalog.load("trained_model").metadata["rounds"] == 2


def test_references_that_no_loss_reaches_are_warned_about_once(
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    params = TrainParams.model_validate(
        {
            "rounds": 2,
            "steps_per_round": 1,
            "max_length": 64,
            "heldout_rows_per_domain": 3,
            "strategy": {"name": "foster"},
        }
    )
    catalog = filled_catalog(tiny_store, tiny_checkpoint, START, params, tmp_path)
    references = catalog.load("reference_losses")
    references["domains"] = {name: {"nats_per_token": 99.0} for name in START}
    catalog["reference_losses"] = MemoryDataset(references)
    SequentialRunner().run(create_pipeline(), catalog)
    said = [r.getMessage() for r in caplog.records if "every gamma was 0" in r.getMessage()]
    assert len(said) == 1 and "`foster` trained as `constant` would have" in said[0]
    history = pd.read_parquet(tmp_path / "history.parquet")
    assert history.groupby("domain")["weight"].nunique().eq(1).all()


def test_a_rollback_to_a_checkpoint_that_is_gone_is_told(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    values = PARAMS | {"gradient_accumulation_steps": 2}
    best = tmp_path / "trained" / "checkpoints" / "checkpoint-4"

    def lose(event: dict[str, Any]) -> None:
        if event["round"] == 3:
            shutil.rmtree(best)

    with pytest.raises(VersatuneError, match=r"back to round 2.*checkpoint-4 is gone"):
        train(
            tiny_store,
            tiny_checkpoint,
            TrainParams.model_validate(values),
            initial_weights=START,
            folder=tmp_path / "trained",
            on_round=lose,
        )


def test_expansion_rolls_back_and_the_report_says_why(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    """law is raised until the others are forgotten: the model is that of the round before."""
    values = PARAMS | {"gradient_accumulation_steps": 2}
    params = TrainParams.model_validate(values)
    catalog = filled_catalog(tiny_store, tiny_checkpoint, START, params, tmp_path)
    SequentialRunner().run(create_pipeline(), catalog)
    written = pd.read_parquet(tmp_path / "history.parquet")
    law = written[written["domain"] == "law"]["weight"].tolist()
    assert law == pytest.approx([0.4, 0.4, 0.7, 0.7])
    reasons = round_log(written)["reason"].tolist()
    assert reasons[1].startswith("gate open") and reasons[2].startswith("gate open")
    assert reasons[3].startswith("guard: the other domains lie")
    assert reasons[3].endswith("back to round 2, the best within it")
    trained = catalog.load("trained_model")
    assert trained.metadata["ended"] == reasons[3]
    measured = heldout_losses(
        load_model(trained.path),
        TokenizedSplit.load(tiny_store, "steering"),
        rows_per_domain=params.heldout_rows_per_domain,
        batch_tokens=100,
    )
    best = written[written["round"] == 2]["validation_loss"].tolist()
    assert [h.nats_per_token for h in measured.values()] == pytest.approx(best, rel=1e-5)


def test_other_weights_from_the_same_inputs_are_stored_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[str] = []
    names: list[str] = []

    def log_model(_path: Path, known: str, _example: str, name: str) -> None:
        logged.append(known)
        names.append(name)

    monkeypatch.setattr(tracking, "log_model", log_model)
    base, train = {"name": "SmolLM2"}, TrainParams()
    for content in (b"one", b"one", b"two"):
        shutil.rmtree(tmp_path / "trained", ignore_errors=True)
        work = WorkFolder.open(tmp_path / "trained", {"seed": 0})
        (work.path / "model.safetensors").write_bytes(content)
        (work.path / "history.json").write_text(f"seconds: {len(logged)}")
        log_trained_model(work.seal(), base, train, TrackingParams(log_model=True))
    assert logged[0] == logged[1] != logged[2]
    assert set(names) == {f"SmolLM2-{train.strategy.name}"}


def test_a_share_of_rows_is_not_taken_for_a_share_of_tokens(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef
) -> None:
    with pytest.raises(
        VersatuneError, match=r"is in rows, and train\.unit is 'supervised_tokens': run"
    ):
        train_model(
            tiny_store,
            tiny_checkpoint.model_dump(mode="json"),
            {"weights": {}, "unit": "rows"},
            {"domains": {}},
            {"domains": {}},
            TrainParams(),
        )


@pytest.mark.parametrize(
    ("theirs", "ours", "warned"),
    [(4, 4, False), (4, 8, True), (4, None, True), (12, None, False), (None, 99, False)],
)
def test_references_of_other_rows_are_said(
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    theirs: int | None,
    ours: int | None,
    warned: bool,
) -> None:
    """A domain has 12 steering rows: from there on every number means all of them."""
    params = TrainParams.model_validate(
        {"strategy": {"name": "foster"}, "heldout_rows_per_domain": ours}
    )
    catalog = filled_catalog(tiny_store, tiny_checkpoint, START, params, tmp_path)
    references = catalog.load("reference_losses") | {"rows_per_domain": theirs}

    given = [catalog.load(n) for n in ("training_rows", "base_model", "initial_mixture")]
    train_model(*given, references, catalog.load("knowledge_distribution"), params)
    assert ("the difference of these rows counts" in caplog.text) == warned
    del references["rows_per_domain"]
    with pytest.raises(VersatuneError, match="run the mixture pipeline again"):
        train_model(*given, references, catalog.load("knowledge_distribution"), params)


def test_references_that_were_switched_off_are_none() -> None:
    assert known_references({"domains": {"law": {"nats_per_token": None}}}) is None
    assert known_references({"domains": {"law": {"nats_per_token": 2.0}}}) == {"law": 2.0}
