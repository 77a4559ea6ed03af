"""The report pipeline by itself, on a hand-filled catalog and on the project's own entries."""

from pathlib import Path

import yaml
from kedro.io import DataCatalog
from kedro.io.memory_dataset import MemoryDataset
from kedro.runner import SequentialRunner
from kedro_datasets.plotly import JSONDataset

from tests.helpers.example_run import SIX, artifacts
from versatune.data.config import Domains
from versatune.demo.base_model import BaseModelParams
from versatune.pipelines.report import create_pipeline
from versatune.pipelines.report.nodes import in_stages
from versatune.pipelines.report.params import ReportParams
from versatune.pipelines.report.pipeline import FIGURES
from versatune.reporting import figures
from versatune.reporting.timings import begin, note, read
from versatune.training.config import TrainParams


def test_every_output_has_a_catalog_entry_in_the_reporting_layer(project_root: Path) -> None:
    entries = yaml.safe_load((project_root / "conf/base/catalog_report.yml").read_text())
    for name in create_pipeline().all_outputs():
        assert entries[name]["metadata"]["kedro-viz"]["layer"] == "reporting", name


def test_a_slice_run_draws_the_figures_and_writes_the_page(tmp_path: Path) -> None:
    timings = tmp_path / "timings.json"
    begin(timings, "1", "kedro run")
    note(timings, "1", "ingest.clean_domains", 12.5, kept=False)
    made = artifacts()
    ahead = figures.forecast(made["forecast"], SIX)
    figure_entries = {
        f"figure_{name}": JSONDataset(filepath=str(tmp_path / f"{name}.json")) for name in FIGURES
    }
    values = {
        **made,
        "parameters": {"train": {"strategy": {"name": "expand", "target": "law"}}, "seed": 7},
        "params:domains": Domains.model_validate(
            {d: {"description": f"About {d}.", "sources": [{"path": f"{d}.jsonl"}]} for d in SIX}
        ),
        "params:base_model": BaseModelParams(kind="pretrain"),
        "params:train": TrainParams(unit="supervised_tokens"),
        "figure_forecast": ahead,
        "params:report": ReportParams(timings=timings, samples=12),
    }
    catalog = DataCatalog({**{n: MemoryDataset(v) for n, v in values.items()}, **figure_entries})
    outputs = SequentialRunner().run(create_pipeline(), catalog)
    page = outputs["report"].load()
    assert page.count('class="plot"') == len(FIGURES) + 1  # and that of the plan pipeline
    assert "5 of 6 outcomes lie within the forecast&#39;s 90 % interval: medicine ended l" in page
    assert "The forecast was made with other values of train." in page
    assert "clean_domains" in page and "12 s" in page
    assert all((tmp_path / f"{name}.json").is_file() for name in FIGURES)
    drawn = catalog.load("figure_shares")
    first = made["mixture_history"].query("domain == 'law' and round > 0")
    assert list(drawn.data[0].y) == first["weight"].tolist()


def test_the_page_that_is_being_written_keeps_no_earlier_page(tmp_path: Path) -> None:
    file = tmp_path / "timings.json"
    begin(file, "1", "kedro run")
    note(file, "1", "train.train_model", 9.0, kept=False)
    note(file, "1", "reporting.write_report", 2.0, kept=False)
    begin(file, "2", "kedro run --pipeline report")
    assert in_stages(read(file)[1]) == [
        {"name": "train.train_model", "seconds": 0.0, "kept": 9.0},
        {"name": "reporting.write_report", "seconds": 0.0, "kept": 0.0},
    ]


def test_timings_that_were_never_written_are_none(tmp_path: Path) -> None:
    assert read(tmp_path / "timings.json") == ({}, [])
