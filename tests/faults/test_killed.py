"""kill -9 in every stage and within writes: the next runs end as an undisturbed one does."""

import signal
from pathlib import Path

import pytest

from tests.faults.conftest import results
from tests.faults.forks import Fault, kedro_run

pytestmark = pytest.mark.slow

MOMENTS = [
    ("ingest", Fault(r"clean/parts/|clean/report\.json")),
    ("ingest", Fault(r"models/base/config\.json", "cut", size=20_000)),
    ("ingest", Fault(r"tokenized/report/.*\.json", "cut", size=4096)),
    ("ingest", Fault(r"ingest_report\.json", "cut")),
    ("probe", Fault(r"judgements/wave_00001")),
    ("probe", Fault(r"knowledge_distribution\.json", "cut")),
    ("mixture", Fault(r"references/medicine/.*history")),
    ("mixture", Fault(r"initial_mixture\.json", "cut")),
    ("plan", Fault(r"forecast\.json", "cut")),
    ("train", Fault(r"checkpoint-6/config\.json", "cut", size=20_000)),
    ("train", Fault(r"models/trained/config\.json", "cut", size=20_000)),
    ("evaluate", Fault(r"evaluations/.*/science-science/.*manifest")),
    ("evaluate", Fault(r"evaluation_tuned\.parquet", "cut")),
    ("report", Fault(r"figures/shares\.json", "cut")),
    ("report", Fault(r"/\.report\.html", "cut", size=5000)),
]


def test_a_run_killed_in_every_stage_ends_as_if_undisturbed(fresh: Path, undisturbed: Path) -> None:
    """One project, killed again and again; each run goes on from what the one before left."""
    for stage, fault in MOMENTS:
        done = kedro_run(fresh, "--env", "test", "--pipeline", stage, fault=fault)
        wanted = signal.SIGKILL if fault.action == "kill" else signal.SIGXFSZ
        assert done.code == -wanted, f"{stage}, {fault.moment}: {done.output[-3000:]}"
        if fault is _last(stage):
            again = kedro_run(fresh, "--env", "test", "--pipeline", stage)
            assert again.code == 0, again.output[-3000:]
    assert results(fresh) == results(undisturbed)


def _last(stage: str) -> Fault:
    return [fault for name, fault in MOMENTS if name == stage][-1]
