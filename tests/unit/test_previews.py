"""What kedro-viz shows at one click on a folder: facts and inputs, not "a folder"."""

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from versatune.artifacts import FolderRef, write_json
from versatune.io import CheckpointDataset, FolderDataset, FoldersDataset, TrainedModelDataset
from versatune.training.job import HISTORY
from versatune.work import WorkFolder

COUNTS = {"law": {"rows": 1200, "tokens": 34000}, "code": {"rows": 7, "tokens": 90}}


@pytest.fixture
def store(tmp_path: Path) -> FolderRef:
    work = WorkFolder.open(tmp_path / "store", {"of": "rows"})
    return work.seal(train=COUNTS)


@pytest.fixture
def model(tmp_path: Path, store: FolderRef) -> Path:
    """Three rounds, of which the second was saved."""
    inputs = {
        "store": store.fingerprint,
        "base": "0123456789abcdef",
        "train": {"seed": 3, "strategy": {"name": "foster"}, "max_length": 99},
        "reference_losses": {"law": 1.9, "code": None},
    }
    work = WorkFolder.open(tmp_path / "trained", inputs)
    rows = [
        {"round": r, "domain": d, "weight": w, "validation_loss": loss - 0.1 * r}
        for r, law in enumerate((0.5, 0.25, 0.125))
        for d, w, loss in (("law", law, 2.5), ("code", 1 - law, 3.0))
    ]
    write_json(work.path / HISTORY, {"rows": rows})
    work.seal(rounds=2, steps=6, device="CPU", validation_loss={"law": 2.4, "code": 2.9})
    return work.path


def shown(dataset: Any, **arguments: str) -> dict[str, Any]:
    assert inspect.signature(dataset.preview).return_annotation.__name__ == "JSONPreview"
    found: dict[str, Any] = json.loads(dataset.preview(**arguments))
    return found


def test_a_trained_model_tells_its_data_shares_and_losses(
    model: Path, store: FolderRef, tmp_path: Path
) -> None:
    rows, base = tmp_path / "rows.json", tmp_path / "base.json"
    write_json(rows, {"path": str(store.path), "fingerprint": store.fingerprint})
    write_json(base, {"name": "a model", "fingerprint": "0123456789abcdef"})
    dataset = TrainedModelDataset(filepath=str(model))
    found = shown(dataset, rows=str(rows), base_model=str(base))
    assert found["base model"] == "a model (0123456789abcdef)"
    assert found["domains"] == {
        "law": {
            "held-out loss": "2.500 -> 2.400 (reference 1.900)",
            "share": "25.0 % -> 12.5 %",
            "data": "1,200 rows, 34,000 tokens",
        },
        "code": {
            "held-out loss": "3.000 -> 2.900",
            "share": "75.0 % -> 87.5 %",
            "data": "7 rows, 90 tokens",
        },
    }
    assert found["training"] == {
        "rounds": 2,
        "steps": 6,
        "strategy": {"name": "foster"},
        "seed": 3,
        "device": "CPU",
    }


def test_it_claims_no_rows_and_no_name_that_it_was_not_made_from(
    model: Path, store: FolderRef, tmp_path: Path
) -> None:
    rows, base = tmp_path / "rows.json", tmp_path / "base.json"
    write_json(rows, {"path": str(store.path), "fingerprint": "of other rows"})
    write_json(base, {"name": "another", "fingerprint": "another"})
    dataset = TrainedModelDataset(filepath=str(model))
    found = shown(dataset, rows=str(rows), base_model=str(base))
    assert found["base model"] == "0123456789abcdef"
    assert all("data" not in lines for lines in found["domains"].values())
    assert found == shown(dataset, rows=str(tmp_path / "gone.json")) == shown(dataset)


def test_other_folders_tell_what_was_noted_and_what_they_were_made_from(
    store: FolderRef, tmp_path: Path
) -> None:
    found = shown(FolderDataset(filepath=str(store.path)))
    assert found == {
        "train": COUNTS,
        "made from": {"of": "rows"},
        "fingerprint": store.fingerprint,
    }
    write_json(tmp_path / "pieces.json", {"pieces": ["store", "gone"]})
    assert shown(FoldersDataset(filepath=str(tmp_path))) == {"store": {"train": COUNTS}}
    write_json(tmp_path / "base.json", {"name": "a model"})
    base = CheckpointDataset(filepath=str(tmp_path / "base.json"), path=str(tmp_path / "base"))
    assert shown(base) == {"name": "a model"}
