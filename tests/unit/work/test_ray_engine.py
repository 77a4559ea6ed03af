"""The same calls on a real local Ray of two workers."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from tests.unit.data.test_tokenize import make_clean
from tests.unit.work import calls as work
from versatune.artifacts import FolderRef
from versatune.data import tokenize
from versatune.data.config import TokenizeParams
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import CheckpointRef, load_tokenizer
from versatune.work import make_folder
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


def test_shards_of_one_store_are_tokenised_by_several_workers(
    tmp_path: Path, tiny_checkpoint: CheckpointRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Ray and by local processes, one of which is killed: the bytes of one process."""
    monkeypatch.setattr("versatune.data.clean.SHARD_ROWS", 60)
    cleaned = make_clean(tmp_path, 100)
    params = TokenizeParams(max_length=64, num_workers=1)

    def store(name: str, params: TokenizeParams, engine: Any = "local") -> FolderRef:
        parallel = ParallelParams(engine=engine)
        piece = tokenize.tokenize(cleaned, tiny_checkpoint.path, load_tokenizer, params, parallel)
        return make_folder(piece, tmp_path / name)

    wanted = store("alone", params)
    assert len(list(wanted.path.glob("train/data-*.arrow"))) > 2
    monkeypatch.setattr(tokenize, "_work", work.killed_after_a_shard)
    monkeypatch.chdir(tmp_path)
    for engine in ("ray", "local"):
        found = store(engine, params.model_copy(update={"num_workers": 2}), engine)
        assert (found.path / "was_killed").is_file()
        assert found.fingerprint == wanted.fingerprint
        files = sorted(f.relative_to(wanted.path) for f in wanted.path.rglob("*") if f.is_file())
        for file in files:
            if file.name != "manifest.json":
                assert (found.path / file).read_bytes() == (wanted.path / file).read_bytes()


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
