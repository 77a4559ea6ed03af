"""The page on domains without data shows the numbers of its CSV."""

import csv
from pathlib import Path

from tests.benchmarks.rehearsal import COLUMNS, markdown


def test_the_page_shows_the_table_of_the_benchmark(project_root: Path) -> None:
    text = (project_root / "docs/results/no_data.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert tuple(rows[0]) == COLUMNS
    shown = markdown(rows)
    assert shown in (project_root / "docs/no-data.md").read_text(encoding="utf-8")
    assert shown.count("\n") == len(rows) + 1
