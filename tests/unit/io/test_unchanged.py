"""What a stage with nothing to do leaves as it is."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from kedro.io import DataCatalog, DatasetError, MemoryDataset
from kedro.pipeline import Node, Pipeline
from kedro.runner import SequentialRunner
from pydantic import BaseModel

from versatune.io import FolderDataset, FoldersDataset
from versatune.io.kept import KeptJSONDataset, KeptParquetDataset
from versatune.pipelines.retrain.when_new import NEWS, when_new
from versatune.work import UNCHANGED, Piece


class Params(BaseModel):
    n: int


def work(rows: list[int], params: Params) -> tuple[dict[str, int], pd.DataFrame]:
    return {"n": params.n + len(rows)}, pd.DataFrame({"row": rows})


def run(folder: Path, rows: list[int], new: bool) -> tuple[Any, pd.DataFrame]:
    node = when_new(Node(work, ["rows", "params:p"], ["number", "table"], name="work"))
    catalog = DataCatalog(
        {
            NEWS: MemoryDataset({"new": new}),
            "rows": MemoryDataset(rows),
            "params:p": MemoryDataset(Params(n=1)),
            "number": KeptJSONDataset(filepath=str(folder / "number.json")),
            "table": KeptParquetDataset(filepath=str(folder / "table.pq")),
        }
    )
    SequentialRunner().run(Pipeline([node]), catalog)
    return catalog.load("number"), catalog.load("table")


def test_a_node_works_when_something_is_new_and_leaves_its_outputs_otherwise(
    tmp_path: Path,
) -> None:
    number, table = run(tmp_path, [5, 6], new=True)
    assert number == {"n": 3} and list(table["row"]) == [5, 6]
    number, table = run(tmp_path, [7], new=False)
    assert number == {"n": 3} and list(table["row"]) == [5, 6]
    assert run(tmp_path, [7], new=True)[0] == {"n": 2}


def test_what_should_be_left_and_is_gone_is_said(tmp_path: Path) -> None:
    run(tmp_path, [5], new=True)
    (tmp_path / "table.pq").unlink()
    with pytest.raises(DatasetError, match=r"table\.pq.* is gone.*state\.json"):
        run(tmp_path, [5], new=False)


def piece(text: str) -> Piece:
    def make(folder: Path) -> dict[str, Any]:
        (folder / "file").write_text(text)
        return {}

    return Piece({"text": text}, make)


def test_folders_stay_and_only_deletable_ones_may_be_missing(tmp_path: Path) -> None:
    one = FolderDataset(filepath=str(tmp_path / "one"))
    one.save(piece("a"))
    before = one.load()
    one.save(UNCHANGED)
    assert one.load() == before
    many = FoldersDataset(filepath=str(tmp_path / "many"))
    some = FoldersDataset(filepath=str(tmp_path / "many"), deletable=True)
    many.save({"a": piece("a"), "b": piece("b")})
    many.save(UNCHANGED)
    assert list(many.load()) == list(some.load()) == ["a", "b"]
    shutil.rmtree(tmp_path / "many" / "a")
    (tmp_path / "many" / "b" / "file").write_text("damaged")
    assert some.load() == {}
    with pytest.raises(DatasetError):
        many.load()
