"""A disk that fills up while a stage writes, and a project that can't be written at all."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.conftest import DATA, is_whole, results
from tests.faults.forks import Fault, kedro_run
from tests.faults.mounts import read_only, small_disk
from tests.helpers.support import copy_project

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("stage", "made", "moment"),
    [
        ("ingest", "05_model_input/tokenized", r"tokenized/train/.*\.json"),
        ("train", "06_models/trained", r"checkpoint-6/config\.json"),
        ("plan,report", "08_reporting/figures", r"figures/shares\.json"),
        ("plan,report", "08_reporting/figures", r"/\.report\.html"),
    ],
)
def test_a_full_disk_is_one_sentence_and_with_room_the_run_goes_on(
    copy: Callable[[Path], Path],
    tmp_path: Path,
    undisturbed: Path,
    stage: str,
    made: str,
    moment: str,
) -> None:
    """The whole project is on the disk that fills up: MLflow can't write either.

    Without the right to mount, files can't grow any more instead.
    """
    with small_disk(tmp_path / "disk", megabytes=100) as mounted:
        project = copy(tmp_path / "disk" / "project")
        shutil.rmtree(project / DATA / made)
        ballast = tmp_path / "disk" / "ballast" if mounted else None
        fault = Fault(moment, "full", size=4096, ballast=ballast)
        done = kedro_run(project, "--env", "test", "--pipelines", stage, fault=fault)
        assert done.code == 1 and "Traceback" not in done.output, done.output[-3000:]
        assert "No space left" in done.error or "File too large" in done.error, done.error
        assert not (project / DATA / made / "manifest.json").exists()
        assert is_whole(project / DATA / "08_reporting/report.html")  # the one before
        if ballast is not None:
            ballast.unlink()
        again = kedro_run(project, "--env", "test", "--pipelines", stage)
        assert again.code == 0, again.output[-3000:]
        assert results(project) == results(undisturbed)


def test_a_read_only_project_is_told_and_data_may_lie_elsewhere(
    tmp_path: Path, project_root: Path
) -> None:
    """What the sentence advises is done, to the letter."""
    project = copy_project(project_root, tmp_path / "project")
    local = project / "conf" / "local"
    shutil.copytree(project / "conf" / "test", local, dirs_exist_ok=True)
    (local / "globals.yml").unlink()
    with read_only(project):
        done = kedro_run(project, "--pipeline", "ingest")
    assert done.code == 1 and "Traceback" not in done.output, done.output[-3000:]
    assert "can't be written" in done.error
    assert "the key `data` in conf/local/globals.yml" in " ".join(done.error.split())
    (local / "globals.yml").write_text(f"data: {tmp_path / 'elsewhere'}\n")
    with read_only(project):
        done = kedro_run(project, "--pipeline", "ingest")
    assert done.code == 0, done.output[-3000:]
    assert "MLflow does not answer" in done.output
    assert (tmp_path / "elsewhere/05_model_input/tokenized/manifest.json").is_file()
    spool = tmp_path / "elsewhere/08_reporting/mlflow_spool.jsonl"
    assert spool.is_file(), done.output[-3000:]
