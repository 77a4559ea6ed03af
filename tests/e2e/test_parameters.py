"""Wrong parameters are told before a run leaves anything behind; right ones work from anywhere."""

import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.forks import Done, kedro_run
from tests.helpers.support import command, copy_project, environment

pytestmark = pytest.mark.slow

FOREIGN = (
    *("Warning", "type hints", "deprecated", "Loading weights", "Writing model shards"),
    *(
        "Tokenizing inputs",
        "Running loglikelihood",
        "Replacing dataset",
        "Map:",
        "Workflow tracking",
        "it/s]",
    ),
)
"""What other libraries would print."""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Path:
    """A project in which nothing has run, nor does."""
    return copy_project(project_root, tmp_path_factory.mktemp("parameters") / "project")


def left(project: Path) -> list[str]:
    """What lies in a project besides code, configuration and the sample's facts."""
    own = ("src", "conf", "data/01_raw", "pyproject.toml")
    files = (f.relative_to(project).as_posix() for f in project.rglob("*") if f.is_file())
    return sorted(name for name in files if not name.startswith(own))


@pytest.mark.parametrize(
    ("pipeline", "given", "words"),
    [
        ("__default__", "trian.rounds=3", "trian (--params): there is no such block of parameters"),
        ("ingest", "trian.rounds=3", "trian (--params): there is no such block of parameters"),
        ("ingest", "train.round=3", "train.round (--params): there is no such parameter (did you"),
        ("report", "evaluate.limit=0", "evaluate.limit (--params): "),
        ("ingest", "train.max_length=64", "train.max_length (--params): 64 is less than tokenize."),
        ("train", "train.max_length=64", "train.max_length (--params): 64 is less than tokenize."),
        ("retrain", "compare.target=art", "compare.target (--params): there is no domain 'art'"),
        ("compare", "retrain.keep_lst=1", "retrain.keep_lst (--params): there is no such parame"),
    ],
)
def test_wrong_parameters_are_refused_whichever_pipeline_runs(
    fresh: Path, pipeline: str, given: str, words: str
) -> None:
    done = kedro_run(fresh, "--env", "test", "--pipelines", pipeline, "--params", given)
    assert done.code == 1 and "Traceback" not in done.output
    assert words in done.error, done.output
    assert left(fresh) == []


def test_what_matters_to_the_stages_of_a_run_is_told_before_it_is_tracked(fresh: Path) -> None:
    given = "references.mode=none,train.strategy.potential_source=progress"
    done = kedro_run(fresh, "--env", "test", "--pipelines", "compare", "--params", given)
    assert done.code == 1 and "Traceback" not in done.output
    assert "compare.strategies.foster (conf/" in done.error and "mode is none" in done.error
    assert left(fresh) == ["mlflow.db"]  # the experiment is made before the pipeline is known
    with sqlite3.connect(fresh / "mlflow.db") as store:
        assert store.execute("SELECT count(*) FROM runs").fetchone() == (0,)
    store.close()
    (fresh / "mlflow.db").unlink()


@pytest.fixture
def local(fresh: Path) -> Iterator[Path]:
    """conf/local of the project, emptied afterwards."""
    folder = fresh / "conf" / "local"
    yield folder
    shutil.rmtree(folder)
    folder.mkdir()


def test_an_unknown_block_in_a_file_is_refused_with_its_line(fresh: Path, local: Path) -> None:
    (local / "parameters_mine.yml").write_text("train:\n  rounds: 2\ntrian:\n  rounds: 3\n")
    done = kedro_run(fresh, "--pipelines", "ingest")
    assert done.code == 1 and "Traceback" not in done.output
    assert "trian (conf/local/parameters_mine.yml:3): there is no such block" in done.error
    assert left(fresh) == []


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "parameters_a.yml",
            "- train\n",
            "parameters_a.yml: holds no keys with values, but a list",
        ),
        ("parameters_a.yml", "train\n", "parameters_a.yml: holds no keys with values, but a str"),
        ("globals.yml", "- data\n", "globals.yml holds no keys with values, but a list"),
        (
            "parameters_a.yml",
            "train:\n  strategy: [1]\n",
            "train.strategy (conf/local/parameters_a",
        ),
        ("parameters_a.yml", "train:\n", "train (conf/local/parameters_a.yml:1): the block is emp"),
        ("parameters_a.yml", "train: [1]\n", "train (conf/local/parameters_a.yml:1): a block of"),
    ],
)
def test_a_file_of_another_form_is_one_sentence(
    fresh: Path, local: Path, name: str, text: str, words: str
) -> None:
    (local / name).write_text(text)
    done = kedro_run(fresh, "--pipelines", "ingest")
    assert done.code == 1 and "Traceback" not in done.output, done.output
    assert words in " ".join(done.error.split())
    assert left(fresh) == []


def started(folder: Path, *arguments: str) -> Done:
    """A run in an interpreter of its own, which imports everything there."""
    done = subprocess.run(
        command(*arguments),
        cwd=folder,
        env=environment(),
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    return Done(done.returncode, done.stdout)


@pytest.mark.parametrize(
    ("folder", "run"),
    [
        ("notebooks", kedro_run),
        ("data", kedro_run),
        ("conf/base", kedro_run),
        ("a/b c", started),
    ],
)
def test_a_run_from_a_folder_below_leaves_nothing_there(
    project_root: Path, tmp_path: Path, folder: str, run: Callable[..., Done]
) -> None:
    project = copy_project(project_root, tmp_path / "project")
    below = project / folder
    below.mkdir(parents=True, exist_ok=True)
    before = sorted(below.rglob("*"))
    node = "ingest.clean_domains"
    done = run(below, "--env", "test", "--pipeline", "ingest", "--nodes", node)
    # The facts were not made yet: the node is reached, and tells that by their place.
    assert done.code == 1 and "Traceback" not in done.output, done.output
    done = run(below, "--env", "test", "--pipelines", "ingest", "--to-nodes", node)
    assert done.code == 0, done.output
    assert "Embedded sample: " in done.output  # by the project's own logging
    assert (project / "data/test/03_primary/clean/manifest.json").is_file()
    assert (project / "mlflow.db").is_file()
    new = set(below.rglob("*")) - set(before)
    assert all(file.is_relative_to(project / "data" / "test") for file in new), new


@pytest.mark.parametrize("option", ["--pipeline", "--pipelines", "--nodes"])
def test_a_run_prints_nothing_of_other_libraries(
    finished: Path, tmp_path: Path, option: str
) -> None:
    project = tmp_path / "project"
    shutil.copytree(finished, project, ignore=shutil.ignore_patterns("mlartifacts", "mlflow.db"))
    for made in ("06_models/trained", "07_model_output/evaluations", "05_model_input/references"):
        shutil.rmtree(project / "data/test" / made)
    names = {
        "--pipeline": "train",
        "--pipelines": "mixture,train,evaluate,report",
        "--nodes": "ingest.report_ingest",
    }
    done = subprocess.run(
        command("--env", "test", option, names[option]),
        cwd=project,
        env={k: v for k, v in environment().items() if not k.startswith("HF_")},
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    ours = [line for line in printed.splitlines() if "held-out loss:" not in line]
    assert [line for line in ours if any(word in line for word in FOREIGN)] == []
