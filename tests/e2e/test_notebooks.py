"""The notebooks, executed in a project whose tiny run is finished.

They are kept with their outputs: the tour and the domain of one's own as the embedded sample gives
them, that on the forecast as `--env test` does. Here the numbers differ; what is shown does not.
"""

import json
import shutil
from pathlib import Path

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

SHOWN = {
    "choose_a_strategy.ipynb": {"image/png", "text/html", "text/markdown"},
    "tour.ipynb": {"image/png", "text/html", "text/markdown"},
    "your_own_domain.ipynb": {"text/html", "text/markdown", "stdout"},
}
"""What each shows at least."""


def test_there_are_no_notebooks_that_no_test_runs(project_root: Path) -> None:
    assert {p.name for p in (project_root / "notebooks").glob("*.ipynb")} == set(SHOWN)


def kinds(book: nbformat.NotebookNode) -> list[list[list[str]]]:
    """Of every code cell, what its outputs are: a stream's name, or the types of the data."""
    return [
        [[o.name] if o.output_type == "stream" else sorted(o.data) for o in cell.outputs]
        for cell in book.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.parametrize("name", SHOWN)
def test_the_outputs_that_are_kept_can_be_shown_and_say_nothing_else(
    project_root: Path, name: str
) -> None:
    book = nbformat.read(project_root / "notebooks" / name, as_version=4)
    nbformat.validate(book)
    told = [kind for cell in kinds(book) for output in cell for kind in output]
    assert SHOWN[name] <= set(told)
    assert "stderr" not in told, "a log or a warning"
    numbers = [cell.execution_count for cell in book.cells if cell.cell_type == "code"]
    assert numbers == list(range(1, len(numbers) + 1)), "run once, from top to end"
    written = nbformat.writes(book)
    assert str(project_root) not in written and "/tmp/" not in written
    assert "\\u001b" not in written
    assert "application/vnd.plotly" not in written, "GitHub does not draw it"


def execute(project: Path, notebook: Path) -> str:
    """Run a notebook in the project's folder; all it shows, as text. It must show what is kept."""
    book = executed(project, notebook)
    assert kinds(book) == kinds(nbformat.read(notebook, as_version=4))
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    return "\n".join(str(o.get("text", "")) + str(o.get("data", "")) for o in outputs)


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
    assert shown.count("image/png") == 5
    assert "report: `data/test/08_reporting/report.html`" in shown
    assert (finished / "data/test/08_reporting/report.html").is_file()


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
    notebook = project_root / "notebooks" / "choose_a_strategy.ipynb"
    kept = nbformat.read(notebook, as_version=4)
    book = executed(finished, notebook)
    assert kinds(book) == kinds(kept)
    forecast = json.loads((finished / "data/test/05_model_input/forecast.json").read_text())
    outputs = [o for cell in book.cells for o in cell.get("outputs", [])]
    said = [o.data["text/markdown"] for o in outputs if "text/markdown" in o.get("data", {})]
    assert said[0] == forecast["advice"]
    (lines,) = [yaml.safe_load(o.text) for o in outputs if o.output_type == "stream"]
    little = forecast["headroom"]["high"] < 0.01
    assert lines["train"]["strategy"]["name"] == ("uniform" if little else "mixing_law")
