"""What other libraries print and is not for their users: suppressed, everything else shown."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from versatune.errors import VersatuneError
from versatune.project.commands import explain
from versatune.project.quiet import FAILURES, without_failure_lines

CHILD = """
import multiprocessing, warnings
from versatune.project.quiet import suppress_viz_advice

def warn(text):
    warnings.warn(text)

if __name__ == "__main__":
    suppress_viz_advice()
    process = multiprocessing.get_context("spawn").Process(
        target=warn, args=["ORJSONResponse is deprecated, FastAPI now does more"]
    )
    process.start()
    process.join()
    warn("ORJSONResponse is deprecated, too")
    warn("something else")
"""


def test_fastapis_advice_is_suppressed_in_the_process_that_kedro_viz_starts(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(CHILD)
    done = subprocess.run(
        [sys.executable, "child.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "something else" in done.stderr, "other warnings are shown"
    assert "ORJSONResponse is deprecated, " not in done.stderr


def test_a_failure_that_ends_in_a_sentence_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    known, fault = VersatuneError("law has no rows."), RuntimeError("a fault of ours")
    node, runner = (logging.getLogger(name) for name in FAILURES)
    for error in (known, fault):
        with without_failure_lines(explain):
            try:
                raise error
            except Exception:
                node.error("Node %s failed with error: \n%s", "clean", error)
                runner.warning("There are 3 nodes. You can resume the pipeline run from ...")
    runner.warning("afterwards: You can resume the pipeline run")
    assert [record.getMessage() for record in caplog.records] == [
        "Node clean failed with error: \na fault of ours",
        "afterwards: You can resume the pipeline run",
    ]
