"""The log: records survive kills and are never mixed up with what was cut off or damaged."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from versatune.work.log import Log

RECORDS = [{"key": f"k{n}", "text": "größer\u2028\n" * n, "p": [0.1 * n, None]} for n in range(9)]

KILLED = """
import resource, signal, sys
from pathlib import Path
from versatune.work.log import Log
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
for n in range(100):
    Log(Path(sys.argv[1])).append({"n": n, "text": "ä" * 20})
"""


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "kept" / "log.jsonl")


def test_what_is_appended_is_read(log: Log) -> None:
    assert log.entries() == [] and log.records() == []
    for record in RECORDS:
        log.append(record)
    assert log.records() == RECORDS
    assert log.path.read_bytes().count(b"\n") == len(RECORDS)


@pytest.mark.parametrize("size", [1000, 1017, 1030, 1055, 1093])
def test_a_process_killed_within_a_write_loses_that_record_alone(
    log: Log, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    """At one of the sizes the kill falls within a letter, at another between two lines."""
    log.append({"n": "first"})
    done = subprocess.run([sys.executable, "-c", KILLED, str(log.path), str(size)], check=False)
    assert done.returncode == -signal.SIGXFSZ
    assert log.path.stat().st_size == size
    found = log.records()
    assert found == [{"n": "first"}, *({"n": n, "text": "ä" * 20} for n in range(len(found) - 1))]
    log.append({"n": "last"})
    assert log.records() == [*found, {"n": "last"}], "the next has a line of its own"
    assert (b"\n" in log.path.read_bytes()[-2:-1]) or "1 of " in caplog.text


def test_whatever_bit_of_a_line_flips_it_is_left_out(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    """Flipped digits and letters are still JSON; a line feed makes two lines of one."""
    for record in RECORDS[1:4]:
        log.append(record)
    content = log.path.read_bytes()
    begin = content.index(b"\n") + 1
    end = content.index(b"\n", begin)
    sound = [RECORDS[1], RECORDS[3]]
    for place in range(8 * begin, 8 * end):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        log.path.write_bytes(flipped)
        caplog.clear()
        assert log.records() == sound, bytes(flipped)
        assert "damaged and are left out" in caplog.text


def test_a_line_without_a_checksum_is_no_record(log: Log) -> None:
    log.append({"key": "sound"})
    with log.path.open("a") as handle:
        handle.write('{"key": "other"}\n[1]\nnull\n{"key"')
    assert log.records() == [{"key": "sound"}]
    assert [entry.record is None for entry in log.entries()] == [False, True, True, True, True]


@given(records=st.lists(st.dictionaries(st.text(), st.text() | st.floats(-1, 1), max_size=3)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_any_json_is_kept(log: Log, records: list[dict[str, Any]]) -> None:
    log.path.unlink(missing_ok=True)
    records = [{key: v for key, v in record.items() if key != "checksum"} for record in records]
    for record in records:
        log.append(record)
    assert log.records() == json.loads(json.dumps(records))


def test_a_log_is_rewritten_or_deleted_in_one_step(log: Log) -> None:
    for record in RECORDS:
        log.append(record)
    log.rewrite(entry.line for entry in log.entries()[7:])
    assert log.records() == RECORDS[7:]
    log.rewrite([])
    assert not log.path.exists()
