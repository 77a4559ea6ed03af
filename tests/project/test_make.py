"""Every ``make`` target finds its commands with a bare PATH, outside of any environment."""

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.support import copy_project

BARE = {"PATH": "/usr/bin:/bin"}
TARGETS = (
    *("run", "test", "lint", "mutate", "bench", "gpu", "wheels"),
    *("docs", "viz", "schedule", "mlflow"),
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Path:
    """A project whose `.venv` is the environment of the tests, newer than what it is made from."""
    made = copy_project(project_root, tmp_path_factory.mktemp("make") / "project")
    for name in ("Makefile", "requirements.lock", "deploy"):
        (made / name).symlink_to(project_root / name)
    (made / ".venv").mkdir()
    (made / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    for name in (".ready", ".bench"):
        (made / ".venv" / name).touch()
    return made


def bare(home: Path) -> dict[str, str]:
    return {**BARE, "HOME": str(home), "OMP_NUM_THREADS": "1"}


def commands(project: Path, target: str) -> list[list[str]]:
    """The words of each command of a target, without variables that are set before it."""
    done = subprocess.run(
        ["make", "--no-print-directory", "-n", target],
        cwd=project, env=bare(project), check=True, capture_output=True, text=True,
    )  # fmt: skip
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    return [[w for w in words if not re.fullmatch(r"\w+=.*", w)] for words in lines]


def test_all_targets_are_here(project: Path) -> None:
    text = (project / "Makefile").read_text(encoding="utf-8")
    assert re.findall(r"^(\w+):", text, re.MULTILINE) == list(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_a_targets_commands_are_there(project: Path, target: str) -> None:
    found = commands(project, target)
    assert found
    for words in found:
        assert os.access(project / words[0], os.X_OK), words
        assert "/" in words[0], f"{words[0]} is looked for in PATH"


@pytest.mark.parametrize("target", ["run", "test", "bench", "gpu", "viz", "mlflow"])
def test_more_arguments_are_passed_on(project: Path, target: str) -> None:
    done = subprocess.run(
        ["make", "-n", target, "ARGS=--one two"],
        cwd=project, env=bare(project), check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.rstrip().endswith(" --one two")


def dry(project: Path, *words: str) -> str:
    """What make would run."""
    return subprocess.run(
        ["make", "--no-print-directory", "-n", *words],
        cwd=project, env=bare(project), check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip


def test_a_python_that_is_given_runs_the_gpu_benchmark_as_it_is(
    project: Path, tmp_path: Path
) -> None:
    (project / ".venv" / ".ready").unlink()
    try:
        said = dry(project, "gpu", "PYTHON=/opt/python3")
        (tmp_path / "some-1-py3-none-any.whl").touch()
        with_wheels = dry(project, "gpu", "PYTHON=/opt/python3", f"WHEELS={tmp_path}").splitlines()
    finally:
        (project / ".venv" / ".ready").touch()
    assert said.split()[1:] == ["/opt/python3", "-m", "tests.benchmarks.gpu"]
    assert "venv" not in said
    install = with_wheels[0]
    assert install.startswith("/opt/python3 -m pip install") and "--no-deps" in install
    assert install.endswith(f"{tmp_path}/some-1-py3-none-any.whl")
    assert with_wheels[-1].split()[1] == "/opt/python3"


def test_the_gpu_benchmark_has_trl_beside_it(project: Path) -> None:
    """Installed apart from the locked packages; the benchmark runs without it, too."""
    (project / ".venv" / ".bench").unlink()
    try:
        install, run = dry(project, "gpu").splitlines()
    finally:
        (project / ".venv" / ".bench").touch()
    trl = re.search(r"trl==[\d.]+", install)
    assert trl and install.startswith(".venv/bin/pip install") and "--no-deps" in install
    assert run.split()[1:] == [".venv/bin/python", "-m", "tests.benchmarks.gpu"]
    assert dry(project, "wheels").rstrip().endswith(trl[0])


def test_packages_come_from_a_folder_where_there_is_no_registry(
    project: Path, tmp_path: Path
) -> None:
    (project / "asked.mk").write_text(
        "include Makefile\nasked:\n\t@echo [$(PIP_NO_INDEX)] $(PIP_FIND_LINKS)\n"
    )

    def settings(*words: str) -> list[str]:
        return subprocess.run(
            ["make", "-f", "asked.mk", *words, "asked"],
            cwd=project, env=bare(project), check=True, capture_output=True, text=True,
        ).stdout.split()[-2:]  # fmt: skip

    assert settings(f"WHEELS={tmp_path}") == ["[1]", str(tmp_path)]
    assert settings()[-1] == "[]"


def free_port() -> int:
    """A port below those that kedro-viz refuses and the system hands out."""
    for port in range(20000 + os.getpid() % 10000, 49000):
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


@contextlib.contextmanager
def started(project: Path, target: str, arguments: str, log: Path) -> Iterator[subprocess.Popen]:
    with log.open("w") as out:
        child = subprocess.Popen(
            ["make", target, f"ARGS={arguments}"], cwd=project, env=bare(project),
            stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            yield child
        finally:
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(child.pid, signal.SIGTERM)
                child.wait(20)
                for _ in range(100):  # its children end after it
                    os.killpg(child.pid, 0)
                    time.sleep(0.05)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "more", "words"), [("mlflow", "", "MLflow"), ("viz", "--no-browser", "Kedro-Viz")]
)
def test_pages_open(project: Path, tmp_path: Path, target: str, more: str, words: str) -> None:
    port, log = free_port(), tmp_path / "log"
    with started(project, target, f"--port {port} {more}", log) as child:
        page = ""
        for _ in range(240):
            assert child.poll() is None, log.read_text()
            with contextlib.suppress(OSError):
                page = (
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read().decode()
                )
                break
            time.sleep(0.5)
        assert words in page, log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.slow
def test_a_run_starts(project: Path) -> None:
    done = subprocess.run(
        ["make", "run", "ARGS=--env test --nodes ingest.build_sample"],
        cwd=project, env=bare(project), check=False, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0 and "Embedded sample:" in done.stderr, done.stderr
