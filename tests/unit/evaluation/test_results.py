"""Rows of the evaluation table by hand: intervals of scores, accuracies, names of metrics."""

from importlib.metadata import version

import numpy as np
import pandas as pd
import pytest

from versatune.evaluation.results import (
    described_versions,
    metric_values,
    plain_metric,
    score_row,
    table,
    task_accuracies,
)
from versatune.intervals import wilson


def test_a_share_has_wilsons_interval() -> None:
    low, high = wilson(0.75, 4)
    assert score_row([1, 1, 0, 1]) == {
        "value": 0.75,
        # sqrt(.75 * .25 / 3), as the harness has it
        "stderr": pytest.approx(0.25),
        "low": low,
        "high": high,
        "n": 4,
    }


def test_other_scores_have_a_normal_interval() -> None:
    found = score_row([0.5, 1.0, 1.5])
    error = 0.5 / np.sqrt(3)
    assert (found["value"], found["n"]) == (1.0, 3)
    assert found["stderr"] == pytest.approx(error)
    ends = (1 - 1.959964 * error, 1 + 1.959964 * error)
    assert (found["low"], found["high"]) == pytest.approx(ends, abs=1e-6)


def test_a_metric_without_what_the_harness_adds() -> None:
    assert plain_metric("exact_match (flexible-extract) (2)") == "exact_match"
    assert plain_metric("acc") == "acc"
    assert plain_metric("mean f1 (strict)") == "mean f1"


def measured(*rows: tuple[str, str, str, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["domain", "task", "metric", "value"])


def test_a_tasks_accuracy_is_the_first_metric_it_has() -> None:
    rows = measured(
        ("law", "courts", "acc_norm", 0.1),
        ("law", "courts", "acc", 0.2),
        ("law", "essays", "f1", 0.3),
        ("code", "programs", "pass@1", 0.4),
        ("law", "essays", "exact_match (strict)", 0.5),
        ("law", "essays", "exact_match (loose)", 0.6),
        ("law", "mmlu (group)", "acc", 0.7),
        ("art", "shapes", "nats_per_token", 0.8),
    )
    found = task_accuracies(rows)
    assert found["value"].tolist() == [0.2, 0.4, 0.5]
    assert list(found.columns) == list(rows.columns)
    twice = pd.concat([rows.assign(model="base"), rows.assign(model="tuned", value=1.0)])
    assert task_accuracies(twice, by=("model",))["value"].tolist() == [0.2, 0.4, 0.5, 1, 1, 1]


def test_a_table_has_its_columns_in_their_order_also_without_rows() -> None:
    assert table([], ("b", "a")).columns.tolist() == ["b", "a"]
    found = table([{"a": 1, "b": 2}], ("b", "a"))
    assert found.to_numpy().tolist() == [[2, 1]]


def test_names_for_mlflow() -> None:
    rows = measured(
        ("law", "held_out", "nats_per_token", 1.5),
        ("law", "law", "acc", 0.5),
        ("law", "bar exam", "exact_match (strict)", 0.25),
    )
    assert metric_values(rows.assign(model="tuned")) == {
        "tuned/nats_per_token/law": 1.5,
        "tuned/acc/law": 0.5,
        "tuned/exact_match _strict_/law-bar exam": 0.25,
    }


def test_versions_in_one_line() -> None:
    said = described_versions().split(", ")
    assert said[0] == f"versatune {version('versatune')}"
    assert f"transformers {version('transformers')}" in said
