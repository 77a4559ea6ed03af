"""Pieces side by side: order, threads, events, logs, kills and errors."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.work import calls as work
from versatune.errors import VersatuneError
from versatune.work.calls import Call, ParallelParams
from versatune.work.parallel import resolve, side_by_side
from versatune.work.processes import _idle, stop_idle

TWO = ParallelParams(workers=2, cpus=1, gpus=0)


def squares(n: int) -> list[Call]:
    return [Call(f"square {i}", work.square, {"number": i}) for i in range(n)]


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_calls(workers: int) -> None:
    params = ParallelParams(workers=workers, cpus=1, gpus=0)
    assert side_by_side(squares(5), params) == [0, 1, 4, 9, 16]


@pytest.mark.parametrize("workers", [1, 2])
def test_every_event_reaches_the_caller_with_its_call(workers: int) -> None:
    heard = []
    params = ParallelParams(workers=workers, cpus=1, gpus=0)
    side_by_side(squares(3), params, lambda call, event: heard.append((call.name, event["number"])))
    assert sorted(heard) == [("square 0", 0), ("square 1", 1), ("square 2", 2)]


def test_log_lines_of_workers_are_the_callers_with_the_name_of_the_call(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("versatune.chatty"), "level", logging.ERROR)
    with caplog.at_level(logging.INFO, logger="versatune"):
        side_by_side(squares(2), TWO)
    assert {"square 0: squaring 0", "square 1: squaring 1"} <= set(caplog.messages)
    assert "nobody asked" not in caplog.text, "the caller's levels hold for its workers too"


def test_calls_run_at_the_same_time(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    found = side_by_side(
        [Call("first", work.wait_for, {"path": flag}), Call("second", work.write, {"path": flag})],
        TWO,
    )
    assert found == ["seen", "written"]


def test_bars_of_several_workers_do_not_mix_in_the_terminal(
    capfd: pytest.CaptureFixture[str],
) -> None:
    params = ParallelParams(workers=2, cpus=1, gpus=0)
    assert side_by_side([Call(str(i), work.with_a_bar) for i in range(2)], params) == [3, 3]
    assert "a bar" not in capfd.readouterr().err


def test_each_worker_has_the_threads_it_was_given() -> None:
    params = ParallelParams(workers=2, cpus=3, gpus=0)
    assert side_by_side([Call(str(i), work.threads) for i in range(2)], params) == [(3, "3")] * 2


def test_a_process_is_used_again_as_long_as_a_new_one_would_be_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def processes() -> set[int]:
        return set(side_by_side([Call(str(i), work.process) for i in range(4)], TWO))

    first = processes()
    assert len(first) <= 2 and os.getpid() not in first
    assert processes() <= first, "between two rounds of calls they wait"
    monkeypatch.setenv("VERSATUNE_SOMETHING", "else")
    second = processes()
    assert not second & first
    waiting = [worker.process for worker in _idle.values()]
    stop_idle()
    # They left by themselves: a signal would be caught in whatever they did, and shown.
    assert [process.exitcode for process in waiting] == [0] * len(waiting) and waiting
    assert not [pid for pid in first | second if Path(f"/proc/{pid}").exists()]


def test_a_killed_worker_is_replaced_and_goes_on(tmp_path: Path) -> None:
    calls = [Call(str(i), work.killed_once, {"folder": tmp_path, "number": i}) for i in range(3)]
    assert side_by_side(calls, TWO) == [0, 1, 2]


def test_a_worker_that_is_always_killed_ends_with_its_name_and_what_to_do() -> None:
    calls = [Call("law", work.always_killed), Call("code", work.square, {"number": 1})]
    with pytest.raises(VersatuneError, match=r"law: its process was killed 3 times.*workers"):
        side_by_side(calls, TWO)


def test_an_error_names_its_call_and_stops_the_others(tmp_path: Path) -> None:
    never = tmp_path / "never"
    calls = [
        Call("waits", work.wait_for, {"path": never}),
        Call("refuses", work.refuse, {"number": 7}),
    ]
    with pytest.raises(VersatuneError, match="refuses: 7 is no number for this"):
        side_by_side(calls, TWO)
    (pid,) = tmp_path.glob("*.pid")
    assert not Path(f"/proc/{pid.stem}").exists()


def test_an_unexpected_error_keeps_its_type_and_notes_where_it_was() -> None:
    calls = [Call("fails", work.fail), Call("square", work.square, {"number": 2})]
    with pytest.raises(KeyError) as error:
        side_by_side(calls, TWO)
    assert any("in fails" in note and "missing" in note for note in error.value.__notes__)


def test_workers_end_when_their_caller_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.unit.work import calls\n"
        "from versatune.work.parallel import Call, ParallelParams, side_by_side\n"
        "if __name__ == '__main__':\n"
        "    never = Path(sys.argv[1]) / 'never'\n"
        "    side_by_side([Call(str(i), calls.wait_for, {'path': never}) for i in range(2)],\n"
        "                 ParallelParams(workers=2, cpus=1, gpus=0))\n"
    )
    script = tmp_path / "caller.py"
    script.write_text(code)
    caller = subprocess.Popen(
        [sys.executable, script, tmp_path], env=_with_tests_on_path(), cwd=Path.cwd()
    )
    pids = _until(lambda: found if len(found := list(tmp_path.glob("*.pid"))) == 2 else None)
    caller.kill()
    caller.wait()
    assert _until(lambda: not any(Path(f"/proc/{pid.stem}").exists() for pid in pids))


def test_workers_default_to_one_a_core_and_never_more_than_there_are_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("versatune.work.parallel._cores", lambda: 16)
    monkeypatch.setattr("versatune.work.parallel._gpus", lambda: 0)
    found = resolve(ParallelParams(), 6)
    assert (found.workers, found.cpus, found.gpus) == (6, 2, 0)
    assert resolve(ParallelParams(cpus=8), 6).workers == 2


def test_with_gpus_a_worker_has_one_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("versatune.work.parallel._cores", lambda: 16)
    monkeypatch.setattr("versatune.work.parallel._gpus", lambda: 4)
    found = resolve(ParallelParams(), 20)
    assert (found.workers, found.cpus, found.gpus) == (4, 4, 1)
    with pytest.raises(VersatuneError, match="at most 2 workers"):
        resolve(ParallelParams(workers=4, gpus=2), 20)


def test_more_gpus_than_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("versatune.work.parallel._gpus", lambda: 1)
    with pytest.raises(VersatuneError, match=r"parallel.gpus is 2, and this machine has 1"):
        resolve(ParallelParams(gpus=2), 3)


def _with_tests_on_path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])}


def _until(check: Callable[[], Any], seconds: float = 60) -> Any:
    """What ``check`` gives once it is true; the last answer when the time is over."""
    ends = time.monotonic() + seconds
    while not (found := check()) and time.monotonic() < ends:
        time.sleep(0.05)
    return found
