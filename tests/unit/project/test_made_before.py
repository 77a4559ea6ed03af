"""A part of a pipeline says which stage has to run first, before any node runs."""

import json
from pathlib import Path
from typing import Any

import pytest
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline, node
from kedro_datasets.json import JSONDataset

from versatune.errors import VersatuneError
from versatune.io import FolderDataset, PlaceDataset
from versatune.project.made_before import check_made_before


def _reads(*_: Any) -> int:
    return 1


def catalog(folder: Path) -> DataCatalog:
    return DataCatalog(
        {
            "ingest_report": JSONDataset(filepath=str(folder / "ingest_report.json")),
            "mixture_history": JSONDataset(filepath=str(folder / "history.json")),
            "clean_data": FolderDataset(filepath=str(folder / "clean")),
            "kept_answers": PlaceDataset(filepath=str(folder / "answers")),
            "own": JSONDataset(filepath=str(folder / "own.json")),
            "page": JSONDataset(filepath=str(folder / "page.json")),
        }
    )


def pipeline(*inputs: str) -> Pipeline:
    return Pipeline([node(_reads, list(inputs), "page", name="write")])


def made(folder: Path, domains: Any) -> None:
    (folder / "clean").mkdir()
    manifest = {"facts": {"domains": domains}}
    (folder / "clean" / "manifest.json").write_text(json.dumps(manifest))


def test_the_missing_input_its_stage_and_the_command_are_named(tmp_path: Path) -> None:
    found = catalog(tmp_path)
    with pytest.raises(VersatuneError, match=r"^ingest_report \(.*ingest_report.json\) is not there"
                       r" yet: the stage ingest makes it. Run `kedro run --pipeline ingest` first,"
                       r" or"):  # fmt: skip
        check_made_before(pipeline("ingest_report", "kept_answers", "params:a"), found, None)
    (tmp_path / "ingest_report.json").write_text("{}")
    check_made_before(pipeline("ingest_report", "kept_answers", "params:a"), found, None)


def test_the_earliest_of_several_stages_comes_first(tmp_path: Path) -> None:
    with pytest.raises(VersatuneError, match=r"^clean_data .*pipeline ingest` first, then those of "
                       r"train, or"):  # fmt: skip
        check_made_before(pipeline("mixture_history", "clean_data"), catalog(tmp_path), None)


def test_what_no_stage_makes_is_said(tmp_path: Path) -> None:
    with pytest.raises(VersatuneError, match=r"^own: not there, and no stage makes it"):
        check_made_before(pipeline("own"), catalog(tmp_path), None)


def test_only_the_nodes_that_are_left_are_looked_at(tmp_path: Path) -> None:
    found = catalog(tmp_path)
    with pytest.raises(VersatuneError):
        check_made_before(pipeline("own"), found, None, only_missing_outputs=True)
    (tmp_path / "page.json").write_text("1")
    check_made_before(pipeline("own"), found, None, only_missing_outputs=True)


def test_a_stage_made_for_other_domains_is_named(tmp_path: Path) -> None:
    """Else a single node looks for `law` among the new names, and ends in a KeyError."""
    made(tmp_path, ["law", "other"])
    asked = pipeline("clean_data", "params:domains")
    check_made_before(asked, catalog(tmp_path), ["other", "law"])
    check_made_before(pipeline("clean_data"), catalog(tmp_path), ["contract_law", "other"])
    check_made_before(asked, catalog(tmp_path), None)
    said = r"for the domains law, other; now they are contract_law, other\. .*--pipeline ingest`"
    with pytest.raises(VersatuneError, match=f"clean_data was made {said}"):
        check_made_before(asked, catalog(tmp_path), ["contract_law", "other"])


def test_a_damaged_folder_is_left_to_its_own_message(tmp_path: Path) -> None:
    made(tmp_path, {"law": 1})
    check_made_before(pipeline("clean_data", "params:domains"), catalog(tmp_path), ["law"])
    (tmp_path / "clean" / "manifest.json").write_text("{")
    check_made_before(pipeline("clean_data", "params:domains"), catalog(tmp_path), ["law"])
