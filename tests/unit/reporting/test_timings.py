"""How long a run took: what earlier runs did is told apart."""

from pathlib import Path

import pytest

from versatune.reporting.tables import by_stage, time_spent
from versatune.reporting.timings import begin, note, read


def test_what_a_run_kept_is_not_added_to_what_it_took(tmp_path: Path) -> None:
    file = tmp_path / "timings.json"
    begin(file, "1", "kedro run")
    note(file, "1", "train.train_model", 600.0, kept=False)
    note(file, "1", "ingest.clean", 30.0, kept=False)
    run, steps = read(file)
    assert run["command"] == "kedro run" and run["began"][:2] == "20"
    assert time_spent(steps) == (630.0, 0.0)

    begin(file, "2", "kedro run --params train.seed=3")
    note(file, "2", "train.train_model", 500.0, kept=False)
    note(file, "2", "ingest.clean", 0.2, kept=True)
    assert time_spent(read(file)[1]) == (500.2, 30.0)

    begin(file, "3", "kedro run --pipeline report")
    note(file, "3", "report.write_report", 2.0, kept=False)
    run, steps = read(file)
    assert run["command"].endswith("report")
    assert time_spent(steps) == (2.0, 530.0)
    assert by_stage(steps) == [
        {"name": "train", "seconds": 0.0, "kept": 500.0},
        {"name": "ingest", "seconds": 0.0, "kept": 30.0},
        {"name": "report", "seconds": 2.0, "kept": 0.0},
    ]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"train.x": {"seconds": 1, "parameters": "a"}}']
)
def test_a_damaged_or_older_file_is_begun_anew(tmp_path: Path, content: str) -> None:
    file = tmp_path / "timings.json"
    file.write_text(content)
    assert read(file) == ({}, [])
    begin(file, "1", "kedro run")
    note(file, "1", "train.x", 1.0, kept=True)
    assert read(file)[1] == [{"name": "train.x", "seconds": 1.0, "kept": 0.0}]
