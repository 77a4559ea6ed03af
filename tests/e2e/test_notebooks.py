"""The notebooks, executed in a project whose tiny run is finished; kept without outputs."""

import shutil
from pathlib import Path

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

NOTEBOOKS = ("tour.ipynb", "your_own_domain.ipynb")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_are_kept_without_outputs(project_root: Path, name: str) -> None:
    book = nbformat.read(project_root / "notebooks" / name, as_version=4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert code and all(not c.outputs and c.execution_count is None for c in code)
    assert str(project_root) not in nbformat.writes(book)


def test_there_are_no_notebooks_that_no_test_runs(project_root: Path) -> None:
    assert sorted(p.name for p in (project_root / "notebooks").glob("*.ipynb")) == list(NOTEBOOKS)


def execute(project: Path, notebook: Path) -> str:
    """Run a notebook in the project's folder; all it shows, as text."""
    folder = project / "notebooks"
    folder.mkdir(exist_ok=True)
    shutil.copy(notebook, folder)
    book = nbformat.read(notebook, as_version=4)
    client = NotebookClient(
        book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    shown = []
    for cell in book.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error"
            shown.append(str(output.get("text", "")) + str(output.get("data", "")))
    return "\n".join(shown)


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
