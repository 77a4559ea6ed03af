"""Benchmarks of the documentation, run to their end on a tiny model and a few rows."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from tests.benchmarks import (
    bench_coverage,
    bench_probe,
    bench_store,
    bench_training,
    budget_table,
    comparison_table,
    mutants,
)
from tests.helpers.example_run import compared
from versatune.artifacts import FolderRef
from versatune.evaluation.comparison import summarise
from versatune.modeling.checkpoints import CheckpointRef

Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a benchmark's command line; gives what it prints."""

    def printed(module: ModuleType, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
        module.main()
        return capsys.readouterr().out

    return printed


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("law", "code"):
        rows = [
            {"instruction": f"What is {name} number {n}?", "output": f"It is {n * n} of {name}."}
            for n in range(60)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def test_speed_of_training(run: Run, data: Path, tiny_checkpoint: CheckpointRef) -> None:
    sizes = ("--steps", 2, "--repeats", 1, "--max-length", 64, "--batch", 2)
    given = ("--model", tiny_checkpoint.path, "--data", data, "--dtype", "float32")
    said = run(bench_training, *given, *sizes, "--contenders", "ours", "bare")
    assert "bare:" in said and "ours / it = " in said and "adaptivity takes" in said


def test_speed_of_sampling(run: Run, tiny_checkpoint: CheckpointRef) -> None:
    sizes = ("--tokens", 4, "--rows", 4, "--batches", 4, "--singles", 1, "--repeats", 1)
    said = run(bench_probe, tiny_checkpoint.path, "--parts", "sampling", *sizes)
    assert "ours / batch 1: " in said and "ours / best batched generate: " in said


def test_a_large_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both halves of the command, which runs the second in a process of its own."""
    bench_store.use(bench_store.make_store(tmp_path / "store", 2000, 3))
    said = capsys.readouterr().out
    assert "plan a round " in said and "go on from a checkpoint " in said


def test_coverage_of_intervals(run: Run) -> None:
    said = run(bench_coverage, "--small", "--worlds", 1, "--replicates", 10).splitlines()
    assert len(said) == 2 + 4 * len(bench_coverage.LEAKS)
    assert all(0 <= float(line.split("|")[4]) <= 1 for line in said[2:])


def test_the_budgets_table(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    project_root: Path,
    tiny_store: FolderRef,
) -> None:
    monkeypatch.chdir(project_root)
    budget_table.main(tiny_store.path)
    assert "| 10,000 | " in capsys.readouterr().out


def test_a_comparisons_tables(run: Run, tmp_path: Path) -> None:
    comparison = compared()["comparison"]
    comparison.to_parquet(tmp_path / "comparison.parquet")
    summarise(comparison, "uniform").to_parquet(tmp_path / "comparison_summary.parquet")
    assert len(pd.read_parquet(tmp_path / "comparison_summary.parquet"))
    said = run(comparison_table, tmp_path)
    assert "held-out loss, 3 seeds, baseline uniform" in said and "| foster | " in said


def test_names_of_mutants(run: Run, monkeypatch: pytest.MonkeyPatch, project_root: Path) -> None:
    monkeypatch.chdir(project_root)
    file = "src/versatune/mixing/shares.py"
    names = run(mutants, 3, file).split()
    assert len(names) == 3 and names == run(mutants, 3, file).split()
    assert all(name.startswith("versatune.mixing.shares.") for name in names)
