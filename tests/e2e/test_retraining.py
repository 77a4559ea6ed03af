"""Three nights of scheduled retraining by the command line, with a tracking server and faults.

A whole week of them: ``python -m tests.benchmarks.retraining_week``.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.scheduled import ABSURD, KEEP_LAST, NAME, Night, Nights, wait_for
from tests.helpers.support import environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

MOMENTS = ("06_models/retrain/0002/**/history.json", "07_model_output/retrain/*_items.parquet")
"""Files whose writing ends a run by SIGKILL: it trains, it has measured both models."""

LOAD = f"""
import sys
import mlflow
parts = mlflow.transformers.load_model("models:/{NAME}@champion", return_type="components")
prompt = parts["tokenizer"]("The court", return_tensors="pt")
assert parts["model"].generate(**prompt, max_new_tokens=2).shape[0] == 1
assert not [name for name in sys.modules if name.startswith("versatune")]
"""


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Iterator[Nights]:
    """A project after two nights, the second of them begun again after every kill."""
    with Nights(project_root, tmp_path_factory.mktemp("nights")) as nights:
        first = nights.run(Night("first data"))
        assert first.code == 0 and first.champion == 1, first.log[-3000:]
        nights.arrive(Night("more"))
        for moment in MOMENTS:
            kill_at(moment, nights)
            assert nights.aliases()["champion"] == 1
        second = nights.run(Night("nothing more", rows=0))
        assert second.code == 0, second.log[-3000:]
        yield nights


def written(files: str, nights: Nights, since: float) -> bool:
    """Whether a run has written one of these files since then."""
    data = nights.path / "data" / "test"
    return any(path.stat().st_mtime > since for path in data.glob(files))


def kill_at(files: str, nights: Nights) -> None:
    """SIGKILL to a run and all its children when it writes one of these."""
    began = time.time()
    with nights.started() as (child, _):
        wait_for(lambda: written(files, nights, began), files, child)
        os.killpg(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL


def test_killed_at_any_moment_the_next_run_goes_on_with_the_same_night(nights: Nights) -> None:
    assert [v.tags["retraining"] for v in nights.versions()[:2]] == ["1", "2"]
    assert [v.tags["decision"] for v in nights.versions()[:2]] == ["promoted", "promoted"]
    statuses = [run.info.status for run in nights.runs()[:4]]
    assert statuses == ["FINISHED", *["KILLED"] * len(MOMENTS), "FINISHED"]


def test_a_night_without_news_says_so_and_leaves_all_as_it_is(nights: Nights) -> None:
    before, aliases = nights.outcome(), nights.aliases()
    quiet = nights.run(Night("nothing", rows=0))
    assert quiet.code == 0 and "Nothing new since retraining 2" in quiet.log
    assert nights.outcome() == before and nights.aliases() == aliases
    (run,) = nights.runs_of(quiet)
    assert run.data.tags["retraining.new"] == "nothing"
    assert run.data.tags["retraining.decision"] == "nothing new"


def test_a_second_run_leaves_with_a_message_and_a_worse_model_is_not_promoted(
    nights: Nights,
) -> None:
    before = nights.aliases()["champion"]
    nights.arrive(Night("more"))
    news, began = "06_models/retrain/last/news.json", time.time()
    with nights.started("--params", ABSURD) as (first, log):
        wait_for(lambda: written(news, nights, began), "the first is at work", first)
        os.killpg(first.pid, signal.SIGSTOP)
        with nights.started() as (second, other):
            assert second.wait(300) == 1
            said = other.read_text()
        os.killpg(first.pid, signal.SIGCONT)
        assert first.wait(300) == 0, log.read_text()[-3000:]
    assert "another run is working" in said and "Traceback" not in said
    assert nights.outcome()["decision"] == "not promoted"
    assert "worse by" in nights.runs()[-1].data.tags["retraining.reasons"]
    assert nights.aliases()["champion"] == before
    # Champion, previous champion and challenger, here and in MLflow, and the base model.
    assert nights.disk()[1] == 2 * (2 + KEEP_LAST) + 1


def test_the_champion_loads_without_versatune_and_rollback_gives_back_the_one_before(
    nights: Nights,
) -> None:
    before = nights.aliases()
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD],
        cwd=nights.path.parent,
        env={**environment(), "MLFLOW_TRACKING_URI": nights.server.uri},
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert loaded.returncode == 0, loaded.stderr[-3000:]
    back = subprocess.run(
        [str(Path(sys.executable).parent / "kedro"), "rollback", "--env", "test"],
        cwd=nights.path,
        env=nights.environment(),
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert back.returncode == 0, back.stderr
    assert f"{NAME} version {before['previous_champion']} serves again" in back.stdout
    assert nights.aliases()["champion"] == before["previous_champion"]
