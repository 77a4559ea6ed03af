"""The lineage as kedro-viz shows it: layers in order, names for people, previews."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.support import environment
from versatune.pipelines.report.pipeline import FIGURES
from versatune.pipelines.stages import BOXES, STAGES

pytestmark = pytest.mark.slow

ORDER = ["intermediate", "primary", "feature", "model_input", "models", "model_output",
         "reporting"]  # fmt: skip


@pytest.fixture(scope="module")
def site(finished: Path) -> Path:
    """The static site with previews."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "kedro"), "viz", "build", "--include-previews"],
        cwd=finished,
        env={**environment(), "KEDRO_ENV": "test"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for foreign in ("circular", "Deprecat"):
        assert foreign not in done.stdout + done.stderr
    return finished / "build"


@pytest.fixture(scope="module")
def graph(site: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((site / "api" / "main").read_text())
    return found


def test_layers_are_shown_in_the_order_in_which_data_flows(graph: dict[str, Any]) -> None:
    shown = graph["layers"]
    assert shown == [layer for layer in ORDER if layer in shown] and len(shown) >= 6


def test_every_pipeline_is_there_and_every_dataset_has_a_layer(graph: dict[str, Any]) -> None:
    names = {pipeline["id"] for pipeline in graph["pipelines"]}
    stages = {*STAGES, "compare", "retrain"}
    assert {"__default__", *stages} <= names
    assert all(node["layer"] for node in graph["nodes"] if node["type"] == "data")
    assert any(node["type"] == "parameters" for node in graph["nodes"])


def test_stages_are_folded_into_boxes(graph: dict[str, Any], site: Path) -> None:
    boxes = {*STAGES, *BOXES} - {"report"}
    assert boxes <= set(graph["modular_pipelines"])
    outside = {child["id"] for child in graph["modular_pipelines"]["__root__"]["children"]}
    ids = {node["name"]: node["id"] for node in graph["nodes"] if node["type"] == "data"}
    assert "report" not in graph["modular_pipelines"] and ids["report"] in outside
    assert {ids[f"figure_{name}"] for name in FIGURES} <= outside, "seen when the graph opens"
    retrain = json.loads((site / "api" / "pipelines" / "retrain").read_text())
    assert {"ingest", "retrain"} <= set(retrain["modular_pipelines"])


@pytest.mark.parametrize("name", ["retrain", "compare"])
def test_other_pipelines_have_layers_too(site: Path, name: str) -> None:
    """kedro-viz shows none where data flows back into an earlier one."""
    graph = json.loads((site / "api" / "pipelines" / name).read_text())
    used = {node["layer"] for node in graph["nodes"] if node["type"] == "data"}
    assert used <= set(graph["layers"]) and len(used) >= 4
    # Of two layers that only give, the order is that of the alphabet.
    made = [layer for layer in ORDER if layer in used - {"intermediate", "feature"}]
    assert [layer for layer in graph["layers"] if layer in made] == made


def test_secrets_do_not_open_the_graph(graph: dict[str, Any]) -> None:
    layers = {node["name"]: node["layer"] for node in graph["nodes"] if node["type"] == "data"}
    assert {layers[f"{name}_key"] for name in ("judge", "audit", "sampler")} == {"feature"}
    first = graph["layers"][0]
    assert {n for n, layer in layers.items() if layer == first} == {
        "sample_files",
        "sample_summary",
        "base_model",
    }


def test_one_click_on_the_model_tells_what_made_it(graph: dict[str, Any], site: Path) -> None:
    model = next(node["id"] for node in graph["nodes"] if node["name"] == "trained_model")
    node = json.loads((site / "api" / "nodes" / model).read_text())
    assert node["preview_type"] == "JSONPreview"
    shown = json.loads(node["preview"])
    law = shown["domains"]["law"]
    assert set(law) == {"held-out loss", "share", "data"} and "rows" in law["data"]
    assert shown["base model"].startswith("pretrained on the sample (")
    assert shown["training"]["strategy"]["name"]


def test_tables_and_figures_have_previews(site: Path, graph: dict[str, Any]) -> None:
    previews: dict[str, str] = {}
    for path in (site / "api" / "nodes").iterdir():
        node = json.loads(path.read_text())
        if node.get("preview"):
            previews[os.path.basename(node["filepath"])] = node["preview_type"]  # noqa: PTH119
    assert previews["evaluation.parquet"] == "TablePreview"
    assert previews["judged_samples.parquet"] == "TablePreview"
    for name in ("knowledge_distribution.json", "initial_mixture.json", "tokenized", "references"):
        assert previews[name] == "JSONPreview"
    forecast = next(n for n in graph["nodes"] if n["name"] == "forecast")
    assert "gain" in json.loads((site / "api" / "nodes" / forecast["id"]).read_text())["preview"]
    assert {previews[f"{name}.json"] for name in FIGURES} == {"PlotlyPreview"}
