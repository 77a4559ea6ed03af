"""The page on domains without data shows the numbers of its CSV."""

import csv
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.rehearsal.table import (
    COLUMNS,
    parts_table,
    same_gain,
    table,
    write_table,
)

SHOWN = (0.5, 0.7, 0.8, 0.9, 1.0)
"""The parts of the way that the page has of the declared setting."""


@pytest.fixture
def rows(project_root: Path) -> list[dict[str, str]]:
    text = (project_root / "docs/results/no_data.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def test_the_page_shows_the_tables_of_the_benchmark(
    project_root: Path, rows: list[dict[str, str]]
) -> None:
    page = (project_root / "docs/no-data.md").read_text(encoding="utf-8")
    assert tuple(rows[0]) == COLUMNS
    of = {name: [r for r in rows if r["setting"] == name] for name in ("sample", "no_data")}
    assert sum(map(len, of.values())) == len(rows)
    assert parts_table(of["sample"]) in page
    assert parts_table(of["no_data"], SHOWN) in page
    assert same_gain(rows) in page


def test_the_declared_setting_has_its_seeds(rows: list[dict[str, str]]) -> None:
    """Held against the aim: half of the forgetting avoided at 0.9 of the gain, which it misses."""
    declared = [r for r in rows if r["setting"] == "no_data"]
    assert {r["n_seeds"] for r in declared} == {"5"}
    assert {r["arm"] for r in declared} >= {"target_only", "self_0.3", "real_0.3"}
    enough = [r for r in declared if float(r["part_of_target_gain"]) >= 0.9]
    assert enough and max(float(r["forgetting_avoided"]) for r in enough) < 0.5


def test_arms_are_compared_at_the_same_gain() -> None:
    def row(arm: str, gain: float, avoided: float) -> dict[str, Any]:
        return {
            "setting": "s",
            "arm": arm,
            "part_of_target_gain": gain,
            "forgetting_avoided": avoided,
        }

    rows = [row("a", 1.0, 0.0), row("a", 0.6, 0.8), row("b", 0.84, 0.4), row("b", 0.5, 0.74)]
    assert same_gain(rows).splitlines()[2:] == [
        "| s | `a` | 0.60 | 0.40 | 0.20 |",
        "| s | `b` | 0.54 | 0.44 |  |",
    ]


def test_parts_are_of_target_only_training_and_other_settings_rows_stay(tmp_path: Path) -> None:
    class World:
        names, target = ["law", "code", "other"], "law"

        class start:  # noqa: N801
            name = "mine"

    def run(law: float, code: float, other: float) -> list[dict[str, Any]]:
        changes = {"law": law, "code": code, "other": other, "own": 0.1}
        return [{"changes": changes, "drift": 0.2}] * 7

    runs = {
        ("target_only", 0): run(-1.0, 0.2, 0.4),
        ("target_only", 1): run(-1.0, 0.4, 0.2),
        ("self_0.3", 0): run(-0.8, -0.1, 0.25),
    }
    made = table(World, runs)  # type: ignore[arg-type]
    own = next(r for r in made if r["arm"] == "self_0.3")
    assert own["part_of_target_gain"] == 0.8 and own["n_seeds"] == 1
    assert own["forgetting_avoided"] == 0.75  # 0.15 of 0.6
    assert own["least_other_change"] == -0.25
    file = tmp_path / "table.csv"
    write_table(file, [r | {"setting": "theirs"} for r in made])
    write_table(file, made)
    write_table(file, made)
    read = list(csv.DictReader(file.read_text().splitlines()))
    assert [r["setting"] for r in read] == ["theirs"] * len(made) + ["mine"] * len(made)
