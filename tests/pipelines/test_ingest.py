"""The ingest pipeline by Kedro's own runner, on a hand-filled catalog."""

import json
from pathlib import Path
from typing import Any

import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner

from versatune.data.config import CleanParams, Domains, TokenizeParams
from versatune.errors import VersatuneError
from versatune.io import FolderDataset
from versatune.modeling.checkpoints import CheckpointRef
from versatune.pipelines.ingest import create_pipeline
from versatune.work import ParallelParams


def catalog(folder: Path, checkpoint: CheckpointRef, files: list[Path]) -> DataCatalog:
    domains = {f.stem: {"description": f.stem, "sources": [{"path": str(f)}]} for f in files}
    values: dict[str, Any] = {
        "sample_summary": {},
        "base_model": checkpoint.model_dump(mode="json"),
        "params:domains": Domains.model_validate(domains),
        "params:ingest": CleanParams(seed=0),
        "params:tokenize": TokenizeParams(max_length=64),
        "params:parallel": ParallelParams(),
    }
    entries: dict[str, Any] = {name: MemoryDataset(value) for name, value in values.items()}
    for name, path in (("clean_data", "clean"), ("tokenized", "tokenized")):
        entries[name] = FolderDataset(filepath=str(folder / path))
    return DataCatalog({**entries, "ingest_report": MemoryDataset()})


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    found = []
    for name in ("law", "code"):
        path = tmp_path / f"{name}.jsonl"
        rows = [{"instruction": f"{name} {n}?", "output": f"the {n}"} for n in range(30)]
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
        found.append(path)
    return found


def test_a_wrong_question_ends_ingest(
    tmp_path: Path, tiny_checkpoint: CheckpointRef, files: list[Path]
) -> None:
    """And not the evaluation behind a probe."""
    entries = catalog(tmp_path, tiny_checkpoint, files)
    path = tmp_path / "questions.jsonl"
    path.write_text('{"question": "q", "choices": ["a", "b"], "answer": "B"}\n')
    domains = entries.load("params:domains").model_dump(mode="json", by_alias=True)
    domains["law"]["evaluation"] = [{"path": str(path)}]
    entries["params:domains"] = MemoryDataset(Domains.model_validate(domains))
    pipeline = create_pipeline().only_nodes_with_outputs("clean_data")
    with pytest.raises(VersatuneError, match=r"questions\.jsonl:1: 'answer' must be the index"):
        SequentialRunner().run(pipeline, entries)
    assert not (tmp_path / "clean").exists()


def test_rows_become_a_store_and_an_account(
    tmp_path: Path, tiny_checkpoint: CheckpointRef, files: list[Path]
) -> None:
    entries = catalog(tmp_path, tiny_checkpoint, files)
    pipeline = create_pipeline().from_inputs("clean_data", "params:domains")
    SequentialRunner().run(pipeline, entries)
    report = entries.load("ingest_report")
    store = entries.load("tokenized")
    assert list(report["domains"]) == store.metadata["domains"] == ["law", "code"]
    for name, entry in report["domains"].items():
        assert entry["read"] == 30
        assert entry["train_rows"] + entry["validation_rows"] == 30
        assert entry["train_tokens"] == store.metadata["train"][name]["tokens"]
    assert report["data_fingerprint"] == store.metadata["data_fingerprint"]


def test_changed_data_reaches_the_store_and_unchanged_data_does_not(
    tmp_path: Path, tiny_checkpoint: CheckpointRef, files: list[Path]
) -> None:
    pipeline = create_pipeline().from_inputs("clean_data", "params:domains")

    def store() -> Any:
        entries = catalog(tmp_path, tiny_checkpoint, files)
        SequentialRunner().run(pipeline, entries)
        return entries.load("tokenized")

    first = store()
    written = (tmp_path / "tokenized" / "manifest.json").stat().st_mtime_ns
    assert store() == first
    assert (tmp_path / "tokenized" / "manifest.json").stat().st_mtime_ns == written
    with files[0].open("a") as out:
        out.write(json.dumps({"instruction": "new?", "output": "new"}) + "\n")
    assert store().fingerprint != first.fingerprint
