"""Mutants of a small project: what a shared fixture reached is made again with the mutant."""

import os
import subprocess
import sys
from pathlib import Path

FILES = {
    "pyproject.toml": '[tool.mutmut]\nsource_paths = ["src"]\nonly_mutate = ["src/sums/*"]\n',
    "src/sums/__init__.py": "",
    "src/sums/total.py": "def total(a, b):\n    return a + b\n",
    "src/sums/unseen.py": "def half(a):\n    return a / b\n",
    "checks/conftest.py": """
from pathlib import Path

import pytest
from sums.total import total

@pytest.fixture(scope="session")
def three():
    Path("made.txt").open("a").write("three ")
    return total(1, 2)

@pytest.fixture(scope="session")
def one():
    Path("made.txt").open("a").write("one ")
    return 1
""",
    "checks/test_total.py": """
def test_three(three, one):
    assert three == 3 * one
""",
}


def test_shared_fixtures_are_made_with_the_mutant(tmp_path: Path, project_root: Path) -> None:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    command = [sys.executable, "-m", "tests.benchmarks.try_mutants", "9", "src", "--fixtures"]
    done = subprocess.run(
        [*command, "--tests", "checks"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{project_root}:{tmp_path / 'src'}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    said = done.stdout.splitlines()
    assert "1 of 1 tests are used" in said
    assert "sums.total.x_total__mutmut_1 killed" in said
    assert "sums.unseen.x_half__mutmut_1 is reached by no test" in said
    assert said[-1].endswith("of 2 drawn of 2") and "'killed': 1" in said[-1]
    made = (tmp_path / "made.txt").read_text().split()
    assert sorted(made) == ["one", "three", "three"], "before the forks, and with the mutant"
