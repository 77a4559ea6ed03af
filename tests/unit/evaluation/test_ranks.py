"""Processes that measure together: which one this is, and how they are started."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from versatune.errors import VersatuneError
from versatune.evaluation import ranks
from versatune.work import ParallelParams
from versatune.work.calls import Call


def test_alone_it_is_the_first_of_one() -> None:
    assert (ranks.rank(), ranks.world()) == (0, 1)


def test_a_process_takes_part_and_leaves_even_when_it_fails(tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []

    def measure() -> None:
        seen.append((ranks.rank(), ranks.world(), dist.get_backend()))
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        ranks._take_part(measure, 0, 1, tmp_path / "meeting")
    assert seen == [(0, 1, "gloo")]
    assert not dist.is_initialized()


@pytest.mark.parametrize(("devices", "gpus"), [(0, 0), (2, 1), (5, 1)])
def test_each_process_has_its_number_and_a_gpu_where_there_are_some(
    monkeypatch: pytest.MonkeyPatch, devices: int, gpus: int
) -> None:
    started: list[tuple[list[Call], ParallelParams]] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    monkeypatch.setattr(ranks, "side_by_side", lambda *given: started.append(given))
    ranks.together(print, 2)
    ((calls, how),) = started
    assert [call.name for call in calls] == ["process 0", "process 1"]
    given: list[dict[str, Any]] = [call.arguments for call in calls]
    assert [each["number"] for each in given] == [0, 1]
    assert given[0]["meeting"] == given[1]["meeting"]
    assert {(each["function"], each["processes"]) for each in given} == {(print, 2)}
    assert (how.workers, how.gpus) == (2, gpus)


def test_a_gpu_for_two_processes_is_too_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(VersatuneError, match="processes is 2, and this machine has 1 GPUs"):
        ranks.together(print, 2)
