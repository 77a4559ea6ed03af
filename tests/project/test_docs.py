"""The documentation: it builds strictly, its picture is current, its commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from kedro.config import OmegaConfigLoader
from kedro.framework.project import pipelines

from tests.project import flow
from versatune.settings import CONFIG_LOADER_ARGS

COMMAND = re.compile(r"^\s*kedro run\b.*$", re.MULTILINE)
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def pages(root: Path) -> list[Path]:
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def commands(text: str) -> list[str]:
    """The lines that begin with ``kedro run`` in a page's blocks of code."""
    return [line.strip() for block in FENCE.findall(text) for line in COMMAND.findall(block)]


def test_the_site_builds_strictly_and_asks_no_other_host(
    project_root: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=project_root,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    fetched = re.findall(r"<(?:script|link|img)\b[^>]*(?:src|href)=\"?(https?://[^\"> ]+)", page)
    assert fetched == []
    names = {path.stem for path in (tmp_path / "site").glob("*.html")}
    assert {path.stem for path in (project_root / "docs").glob("*.md")} <= names


def test_every_page_is_in_the_navigation(project_root: Path) -> None:
    navigation = (project_root / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[1]
    named = set(re.findall(r"([\w-]+\.md)$", navigation, re.MULTILINE))
    assert named == {path.name for path in (project_root / "docs").glob("*.md")}


def test_the_picture_of_the_flow_is_that_of_the_pipelines(project_root: Path) -> None:
    written = (project_root / "docs" / "flow.svg").read_text(encoding="utf-8")
    assert written == flow.picture(project_root), (
        "run: python -m tests.project.flow > docs/flow.svg"
    )


def test_the_readme_can_be_read_in_half_a_minute(project_root: Path) -> None:
    text = (project_root / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150


@pytest.mark.parametrize("option", ["--pipeline", "--env"])
def test_commands_name_pipelines_and_environments_that_exist(
    project_root: Path, option: str
) -> None:
    known = {
        "--pipeline": set(pipelines),
        "--env": {
            str(path.relative_to(project_root / "conf"))
            for path in (project_root / "conf").rglob("*")
            if path.is_dir()
        },
    }[option]
    for page in pages(project_root):
        for command in commands(page.read_text(encoding="utf-8")):
            for name in re.findall(rf"{option}[ =]([\w/]+)", command):
                assert name in known or name == "NAME", f"{page.name}: {command}"


def test_commands_set_parameters_that_exist(project_root: Path) -> None:
    loader = OmegaConfigLoader(str(project_root / "conf"), **CONFIG_LOADER_ARGS)
    blocks = set(loader["parameters"]) | {"model", "data"}  # conf/smollm2's own
    seen = 0
    for page in pages(project_root):
        for command in commands(page.read_text(encoding="utf-8")):
            for given in re.findall(r"--params[ =]\"?([\w.=,/$:-]+)", command):
                for pair in given.split(","):
                    key = pair.split("=")[0].split(".")[0]
                    if key and not key.startswith("$"):
                        seen += 1
                        assert key in blocks, f"{page.name}: {command}"
    assert seen >= 5
