"""Another time zone, no locale, ASCII files by default, files from the future: the same results."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.faults.conftest import results
from tests.helpers.support import command, environment

pytestmark = pytest.mark.slow

ODD = {
    "TZ": "Pacific/Kiritimati",
    "LC_ALL": "C",
    "LANG": "tr_TR.UTF-8",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONUTF8": "0",
    "PYTHONHASHSEED": "7",
}


def test_clock_and_locale_change_nothing(fresh: Path, undisturbed: Path) -> None:
    for file in (fresh / "data").rglob("*"):
        os.utime(file, (4e9, 4e9))
    kept = {k: v for k, v in environment().items() if not k.startswith("LC_")}
    done = subprocess.run(
        command("--env", "test"),
        cwd=fresh,
        env=kept | ODD,
        check=False,
        capture_output=True,
        timeout=500,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    found, expected = results(fresh), results(undisturbed)
    assert [name for name in expected if found.get(name) != expected[name]] == []
