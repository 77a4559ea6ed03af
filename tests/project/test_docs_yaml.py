"""The configuration in README and documentation: every block is one that a run accepts."""

import re
import shutil
from pathlib import Path

import pytest
import yaml
from kedro.config import OmegaConfigLoader
from kedro_mlflow.config.kedro_mlflow_config import KedroMlflowConfig

from tests.project.test_docs import pages
from versatune.errors import VersatuneError
from versatune.project.blocks import BLOCKS, Blocks
from versatune.project.hook import check
from versatune.project.places import Places
from versatune.settings import CONFIG_LOADER_ARGS

YAML = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
KEY = re.compile(rf"[`\"]((?:{'|'.join(BLOCKS)})\.[a-z_0-9.]+[a-z_0-9])")
"""A parameter as a page names it, its block before it."""

TAGS = {"probe.doubts", "mixture.start", "train.shares", "train.ended", "report.html"}
"""What begins like a parameter and is none: MLflow's tags, and a file."""


def read(project_root: Path, folder: Path, text: str) -> Blocks:
    """The parameters of a project whose `conf/local/parameters.yml` is ``text``."""
    conf = folder / "conf"
    shutil.copytree(project_root / "conf" / "base", conf / "base")
    (conf / "local").mkdir()
    (conf / "local" / "parameters.yml").write_text(text, encoding="utf-8")
    loader = OmegaConfigLoader(str(conf), env="local", **CONFIG_LOADER_ARGS)
    return check(loader, Places(loader))


def examples(root: Path) -> list[tuple[str, str]]:
    """(page, block of YAML) of every page."""
    return [
        (page.name, text)
        for page in pages(root)
        for text in YAML.findall(page.read_text(encoding="utf-8"))
    ]


def test_every_block_of_yaml_is_accepted(project_root: Path, tmp_path: Path) -> None:
    credentials = yaml.safe_load((project_root / "conf/base/credentials.yml").read_text())
    seen = 0
    for number, (page, text) in enumerate(examples(project_root)):
        given = yaml.safe_load(text)
        if set(given) == {"server"}:
            KedroMlflowConfig.model_validate(given)
            continue
        if set(given) <= set(credentials):
            assert all(set(given[name]) == set(credentials[name]) for name in given), page
            continue
        try:
            here = text.replace("/data/tasks", str(tmp_path))
            blocks = read(project_root, tmp_path / str(number), here)
        except VersatuneError as error:
            pytest.fail(f"{page}: {error}\n{text}")
        assert set(given) <= set(blocks)
        seen += 1
    assert seen >= 10


def test_a_wrong_block_is_found(project_root: Path, tmp_path: Path) -> None:
    with pytest.raises(VersatuneError, match="learning_rat"):
        read(project_root, tmp_path, "train: {learning_rat: 1}")


def known_keys(root: Path) -> set[str]:
    """Every parameter of the reference with its block, each choice's keys under the one name."""
    known, block = set(BLOCKS), ""
    for line in (root / "docs" / "parameters.md").read_text(encoding="utf-8").splitlines():
        if title := re.fullmatch(r"## `(\w+)`", line):
            block = title[1]
        elif row := re.match(r"\| `([^`]+)` \|", line):
            known.add(re.sub(r" \([^)]*\)|\[\]", "", f"{block}.{row[1]}"))
    return known


def test_every_parameter_that_a_page_names_exists(project_root: Path) -> None:
    known = known_keys(project_root) | TAGS
    named = {
        f"{page.name}: {key}"
        for page in pages(project_root)
        for key in KEY.findall(page.read_text(encoding="utf-8"))
        if key not in known
    }
    assert not named
    assert "train.strategy.sigma" in known and "train.strategy.sigmo" not in known
