"""The wheel, installed beside nothing of the checkout, runs with a configuration of its own."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.support import environment

pytestmark = pytest.mark.slow

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Path:
    """A folder with the package alone, from a wheel built of a copy of the checkout."""
    folder = tmp_path_factory.mktemp("package")
    source = folder / "source"
    (source / "data").mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(project_root / name, source)
    for name in ("src", "conf", "data/01_raw", "deploy/accelerate"):
        shutil.copytree(
            project_root / name,
            source / name,
            symlinks=True,
            ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"),
        )
    (source / "conf" / "local").mkdir(exist_ok=True)
    (source / "conf" / "local" / "parameters.yml").write_text("secret: 1\n")
    module("build", "--no-isolation", "--outdir", str(folder), str(source))
    (wheel,) = folder.glob("versatune-*.whl")
    options = ("--no-deps", "--no-index", "--quiet")
    module("pip", "install", "--target", str(folder / "site"), *options, str(wheel))
    return folder / "site"


def module(*arguments: str) -> None:
    command = [sys.executable, "-m", *arguments]
    subprocess.run(command, check=True, timeout=300, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def run(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """A Python command line that finds the installed package before the checkout."""
    outside = tmp_path_factory.mktemp("outside")

    def start(*arguments: str, cwd: Path = outside) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=cwd,
            env={**environment(), "PYTHONPATH": str(installed)},
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return start


EACH = """
import os
import sys

import kedro_mlflow.framework.hooks
import versatune.cli
from kedro.framework.cli.cli import main

given = {"smollm2": "model=m,data=d", "results/smollm2_expand": "data=d"}
for env in sys.argv[1:]:
    reading, writing = os.pipe()
    if not os.fork():
        os.dup2(writing, 2)
        params = ["--params", given[env]] if env in given else []
        sys.argv = ["kedro", "run", "--env", env, *params, "--nodes", "ingest.build_sample"]
        main()
    os.close(writing)
    with open(reading) as said:
        printed = said.read()
    code = os.wait()[1]
    if code or not ("Embedded sample: " in printed or "(build_sample)" in printed):
        sys.exit(f"{env}: {code}, {printed}")
"""
"""Runs one node in each of these environments, in forks: imports take most of such a run."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def environments(project: Path) -> list[str]:
    """The environments of a project that stand for themselves, and two of those for results."""
    conf = project / "conf"
    own = [folder.name for folder in sorted(conf.iterdir()) if folder.is_dir()]
    kept = [name for name in own if name not in ("base", "test", "results")]
    return [*kept, "results/fostering", "results/smollm2_expand"]


def configuration(project: Path) -> list[str]:
    """The files below conf/, without those of conf/local."""
    conf = project / "conf"
    files = [f.relative_to(conf) for f in conf.rglob("*") if f.is_file()]
    return sorted(f.as_posix() for f in files if f.parts[0] != "local")


def test_init_then_run_as_a_project_of_ones_own(
    installed: Path, run: Command, tmp_path: Path, project_root: Path
) -> None:
    where = run("-c", "import versatune; print(versatune.__file__)").stdout
    assert Path(where.strip()).is_relative_to(installed)
    project = tmp_path / "my project"
    made = run("-m", "versatune", "init", str(project))
    assert made.returncode == 0 and "kedro run" in made.stdout, made.stderr
    assert names(project) == ["conf", "data", "deploy", "pyproject.toml"]
    assert (project / "deploy" / "accelerate" / "fsdp.yaml").is_file()  # conf/paper names it
    assert names(project / "conf" / "local") == []
    assert configuration(project) == configuration(project_root)
    done = run("-c", EACH, *environments(project), cwd=project)
    assert done.returncode == 0, done.stderr
    for command in (("-m", "kedro", "run"), ("-m", "versatune", "run", "--pipeline", "report")):
        done = run(*command, "--env", "test", cwd=project)
        assert done.returncode == 0, done.stderr[-3000:]
    assert (project / "data" / "test" / "08_reporting" / "report.html").is_file()
    assert (project / "mlflow.db").is_file()


def test_nothing_that_is_there_is_written_over(run: Command, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    done = run("-m", "versatune", "init", str(tmp_path))
    assert done.returncode == 1 and "not empty" in done.stderr and "Traceback" not in done.stderr
    assert names(tmp_path) == ["mine"]


def test_nothing_of_conf_local_is_in_the_wheel(installed: Path) -> None:
    starter = installed / "versatune" / "project" / "starter"
    assert (starter / "conf" / "base" / "parameters_train.yml").is_file()
    assert not (starter / "conf" / "local").exists()
    assert (starter / "template" / "hooks" / "post_gen_project.py").is_file()
    assert (starter / "template" / "{{ cookiecutter.repo_name }}" / "README.md").is_file()
