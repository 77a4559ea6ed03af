"""SIGKILL at every write: ``python -m tests.benchmarks.killed_everywhere [STAGE ...]``.

A tiny project runs stage by stage. Each run is killed when it opens or renames the first file of a
kind at which none was killed before (a kind: the path, numbers and domains taken out), so each
goes on from what the one before left, until there is no new kind. In the end every result has to
be, byte for byte, that of a project that ran undisturbed. Prints the kinds, stage by stage.
"""

import signal
import sys
import tempfile
from pathlib import Path

from tests.faults.conftest import results
from tests.faults.forks import Done, Fault, kedro_run
from tests.helpers.support import copy_project

STAGES = ("ingest", "probe", "mixture", "plan", "train", "evaluate", "report", "retrain")
WRITES = r"(^|/)data/test/"


def main(stages: list[str]) -> int:
    """The kills; 0 when the results are those of an undisturbed run."""
    root = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory() as folder:
        undisturbed = copy_project(root, Path(folder) / "undisturbed")
        for stage in ("__default__", "retrain"):
            _finished(kedro_run(undisturbed, "--env", "test", "--pipeline", stage))
        project = copy_project(root, Path(folder) / "project")
        kinds = Path(folder) / "kinds"
        kinds.touch()
        for stage in STAGES:
            before = kinds.read_text().splitlines()
            arguments = ("--env", "test", "--pipeline", stage)
            killed = stage in (stages or STAGES)
            while killed:
                done = kedro_run(project, *arguments, fault=Fault(WRITES, once=kinds))
                killed = done.code == -signal.SIGKILL
                if not killed:
                    _finished(done)
            _finished(kedro_run(project, *arguments))
            new = kinds.read_text().splitlines()[len(before) :]
            print(f"{stage}: killed {len(new)} times, at\n  " + "\n  ".join(new), flush=True)
        found, expected = results(project), results(undisturbed)
        other = [name for name in expected if found.get(name) != expected[name]]
        total = len(kinds.read_text().splitlines())
        print(f"\n{total} kills, {len(expected)} results, {len(other)} of them differ {other}")
    return 1 if other else 0


def _finished(done: Done) -> None:
    if done.code:
        sys.exit(done.output[-4000:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
