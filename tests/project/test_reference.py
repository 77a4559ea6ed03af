"""The parameter reference in the documentation is the one the models give."""

from pathlib import Path

from kedro.framework.project import configure_project, pipelines

from versatune.project.parameter_reference import markdown


def test_the_parameter_reference_is_current(project_root: Path) -> None:
    configure_project("versatune")
    written = (project_root / "docs" / "parameters.md").read_text(encoding="utf-8")
    assert written == markdown(dict(pipelines)), "run: kedro parameters > docs/parameters.md"


def test_the_readme_links_what_is_there(project_root: Path) -> None:
    import re

    text = (project_root / "README.md").read_text(encoding="utf-8")
    links = [t for t in re.findall(r"\]\(([^)#\s]+)", text) if not t.startswith("http")]
    assert links
    assert [link for link in links if not (project_root / link).exists()] == []
