"""The notebooks, executed in a project whose tiny run is finished.

Two are kept without outputs; that on the forecast is kept with what `--env test` gives.
"""

import json
import shutil
from pathlib import Path

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

EMPTY = ("tour.ipynb", "your_own_domain.ipynb")
SHOWN = "choose_a_strategy.ipynb"


@pytest.mark.parametrize("name", EMPTY)
def test_notebooks_are_kept_without_outputs(project_root: Path, name: str) -> None:
    book = nbformat.read(project_root / "notebooks" / name, as_version=4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert code and all(not c.outputs and c.execution_count is None for c in code)
    assert str(project_root) not in nbformat.writes(book)


def test_there_are_no_notebooks_that_no_test_runs(project_root: Path) -> None:
    assert sorted(p.name for p in (project_root / "notebooks").glob("*.ipynb")) == [SHOWN, *EMPTY]


def kinds(book: nbformat.NotebookNode) -> list[list[list[str]]]:
    """Of every code cell, what its outputs are: a stream's name, or the types of the data."""
    return [
        [[o.name] if o.output_type == "stream" else sorted(o.data) for o in cell.outputs]
        for cell in book.cells
        if cell.cell_type == "code"
    ]


def test_the_outputs_that_are_kept_can_be_shown_and_say_nothing_else(project_root: Path) -> None:
    book = nbformat.read(project_root / "notebooks" / SHOWN, as_version=4)
    nbformat.validate(book)
    told = [kind for cell in kinds(book) for output in cell for kind in output]
    assert "image/png" in told and "text/html" in told and "text/markdown" in told
    assert "stderr" not in told, "a log or a warning"
    written = nbformat.writes(book)
    assert str(project_root) not in written and "\\u001b" not in written
    assert "application/vnd.plotly" not in written, "GitHub does not draw it"


def execute(project: Path, notebook: Path) -> str:
    """Run a notebook in the project's folder; all it shows, as text."""
    shown = []
    for cell in executed(project, notebook).cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error"
            shown.append(str(output.get("text", "")) + str(output.get("data", "")))
    return "\n".join(shown)


def executed(project: Path, notebook: Path) -> nbformat.NotebookNode:
    """A notebook with the outputs that it has in the project's folder."""
    folder = project / "notebooks"
    folder.mkdir(exist_ok=True)
    shutil.copy(notebook, folder)
    book = nbformat.read(notebook, as_version=4)
    client = NotebookClient(
        book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    return book


@pytest.mark.slow
def test_the_tour_shows_every_stage(
    finished: Path, project_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEDRO_ENV", "test")
    shown = execute(finished, project_root / "notebooks" / "tour.ipynb")
    for words in ("train_tokens", "samples of", "raw_share", "starting share", "verdict"):
        assert words in shown, words
    assert shown.count("application/vnd.plotly") >= 5
    assert str(finished / "data/test/08_reporting/report.html") in shown


@pytest.mark.slow
def test_a_domain_of_ones_own_from_rows_to_the_account(
    finished: Path, project_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEDRO_ENV", "test")
    shown = execute(finished, project_root / "notebooks" / "your_own_domain.ipynb")
    assert "other, chemistry from HuggingFaceTB/SmolLM2-135M-Instruct" in shown
    assert "empty_output" in shown, "the broken row is counted"
    assert "What is the atomic number of boron?\\n⟦It is 5.</s>⟧" in shown.replace("\n", "\\n")
    overlay = yaml.safe_load((finished / "conf" / "mine" / "parameters.yml").read_text())
    assert overlay["domains"]["law"] is None


@pytest.mark.slow
def test_a_strategy_is_chosen_from_the_forecast(
    finished: Path, project_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEDRO_ENV", "test")
    kept = nbformat.read(project_root / "notebooks" / SHOWN, as_version=4)
    book = executed(finished, project_root / "notebooks" / SHOWN)
    assert kinds(book) == kinds(kept)
    forecast = json.loads((finished / "data/test/05_model_input/forecast.json").read_text())
    outputs = [o for cell in book.cells for o in cell.get("outputs", [])]
    said = [o.data["text/markdown"] for o in outputs if "text/markdown" in o.get("data", {})]
    assert said[0] == forecast["advice"]
    (lines,) = [yaml.safe_load(o.text) for o in outputs if o.output_type == "stream"]
    little = forecast["headroom"]["high"] < 0.01
    assert lines["train"]["strategy"]["name"] == ("uniform" if little else "mixing_law")
