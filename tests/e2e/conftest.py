"""A project of one's own to run, and one that has run."""

import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from filelock import FileLock

from tests.faults.forks import Done, kedro_run
from tests.helpers.support import Kedro, command, copy_project, environment

FIRST_LOG = "first_run.log"
"""What the run of :func:`finished` wrote to the terminal."""


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Path:
    """The copy lies below a path with a space and letters beyond ASCII; its conf is committed."""
    made = copy_project(project_root, tmp_path_factory.mktemp("e2e") / "mein Projekt é")
    me = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    for words in (("init", "-q"), ("add", "conf"), (*me, "commit", "-qm", "all")):
        subprocess.run(["git", "-C", str(made), *words], check=True)
    return made


@pytest.fixture(scope="session")
def kedro(project: Path) -> Kedro:
    """Run ``kedro run --env test`` with more arguments in the project."""

    def run(*arguments: str, env: str = "test") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command("--env", env, *arguments),
            cwd=project,
            env=environment(),
            check=False,
            capture_output=True,
            text=True,
            timeout=900,
        )

    return run


@pytest.fixture(scope="session")
def forked(project: Path) -> Callable[..., Done]:
    """The same in a fork of a process that has imported everything, which saves seconds."""

    def run(*arguments: str) -> Done:
        return kedro_run(project, "--env", "test", *arguments)

    return run


@pytest.fixture(scope="session")
def finished(project: Path, kedro: Kedro, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project after one whole run: of the first process of the tests, others get a copy."""
    shared = tmp_path_factory.getbasetemp()
    if shared.name.startswith("popen-"):
        shared = shared.parent
    kept, place = shared / "finished", shared / "finished.txt"
    with FileLock(shared / "finished.lock"):
        if place.exists():
            shutil.rmtree(project / ".git")
            shutil.copytree(kept, project, dirs_exist_ok=True)
            _move_records(project / "mlflow.db", place.read_text(), str(project))
            return project
        done = kedro()
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        (project / FIRST_LOG).write_text(done.stderr, encoding="utf-8")
        shutil.copytree(project, kept)
        place.write_text(str(project))
    return project


def _move_records(database: Path, before: str, after: str) -> None:
    """MLflow knows its artifacts by absolute places, some of them as addresses."""
    places = (
        *(("experiments", "artifact_location"), ("runs", "artifact_uri")),
        ("logged_models", "artifact_location"),
    )
    with sqlite3.connect(database) as store:
        for table, column in places:
            for old, new in ((before, after), (quote(before), quote(after))):
                store.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (old, new))
    store.close()
