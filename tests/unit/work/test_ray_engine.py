"""The same calls on a real local Ray of two workers."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from tests.unit.work import calls as work
from versatune.errors import VersatuneError
from versatune.work.calls import Call, ParallelParams
from versatune.work.parallel import side_by_side

TWO = ParallelParams(engine="ray", workers=2, cpus=1, gpus=0)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Two cores, whatever the machine has."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    yield
    ray.shutdown()


def test_results_events_and_log_lines_come_back(caplog: pytest.LogCaptureFixture) -> None:
    heard = []
    calls = [Call(f"square {i}", work.square, {"number": i}) for i in range(4)]
    with caplog.at_level(logging.INFO, logger="versatune"):
        found = side_by_side(calls, TWO, lambda call, event: heard.append((call.name, event)))
    assert found == [0, 1, 4, 9]
    assert sorted(heard) == [(f"square {i}", {"number": i}) for i in range(4)]
    assert "square 3: squaring 3" in caplog.messages


def test_calls_run_at_the_same_time(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    calls = [
        Call("first", work.wait_for, {"path": flag}),
        Call("second", work.write, {"path": flag}),
    ]
    assert side_by_side(calls, TWO) == ["seen", "written"]


def test_a_killed_worker_is_replaced_and_goes_on(tmp_path: Path) -> None:
    calls = [Call(str(i), work.killed_once, {"folder": tmp_path, "number": i}) for i in range(2)]
    assert side_by_side(calls, TWO) == [0, 1]


def test_each_worker_has_the_threads_it_was_given() -> None:
    assert side_by_side([Call("threads", work.threads)], TWO) == [(1, "1")]


def test_an_error_names_its_call() -> None:
    calls = [Call("refuses", work.refuse, {"number": 7})]
    with pytest.raises(VersatuneError, match="refuses: 7 is no number for this"):
        side_by_side(calls, TWO)


def test_a_piece_larger_than_every_machine_is_refused() -> None:
    params = ParallelParams(engine="ray", cpus=64, gpus=0)
    with pytest.raises(VersatuneError, match=r"64 cores.*no machine.*the largest has 2 cores"):
        side_by_side([Call("square", work.square, {"number": 1})], params)
