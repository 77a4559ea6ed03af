"""Numbers of the harness's own tasks as rows of the table; the rows of drift. All by hand."""

import math
from typing import Any

import numpy as np
import pytest

from versatune.evaluation.drift import COLUMNS, drift_row, per_token
from versatune.evaluation.results import item_scores, named_row, task_version
from versatune.intervals import wilson


def sample(number: int, chain: str = "none", **metrics: Any) -> dict[str, Any]:
    return {"doc_id": number, "filter": chain, "metrics": list(metrics), **metrics}


def test_items_of_one_metric_and_one_chain_of_filters() -> None:
    samples = [
        sample(0, acc=1.0, f1=0.3),
        sample(0, "strict", acc=0.0),
        sample(4, acc=0),
        sample(7, f1=0.5),
    ]
    assert item_scores(samples, "acc", "none") == {0: 1.0, 4: 0.0}
    assert item_scores(samples, "acc", "strict") == {0: 0.0}
    assert item_scores(samples, "f1", "none") == {0: 0.3, 7: 0.5}
    assert item_scores(samples, "f1", "strict") == {}


def test_what_is_only_known_of_the_whole_task_has_no_items() -> None:
    samples = [sample(0, perplexity=(1.0, 2)), sample(1, perplexity=3.0)]
    assert item_scores(samples, "perplexity", "none") == {}


def test_a_group_without_a_version_has_those_of_its_members() -> None:
    found = {
        "versions": {"one": 1.0, "two": 2, "group": "N/A", "known": 3},
        "group_subtasks": {"group": ["two", "inner"], "inner": ["one", "one"], "known": ["one"]},
    }
    assert task_version("one", found) == "1.0"
    assert task_version("known", found) == "3"
    assert task_version("inner", found) == "members: 1.0"
    assert task_version("group", found) == "members: 2, members: 1.0"
    assert task_version("unknown", found) == "None"


def test_a_share_of_items_has_wilsons_interval() -> None:
    values = {3: 1.0, 5: 0.0, 6: 1.0, 9: 1.0}
    row = named_row(0.75, 0.2, values, 4)
    low, high = wilson(0.75, 4)
    # The sample's deviation: sqrt(0.75 * 0.25 / 3)
    assert row == pytest.approx({"value": 0.75, "stderr": 0.25, "low": low, "high": high, "n": 4})


def test_another_number_than_the_items_mean_keeps_the_harness_s_error() -> None:
    """Four items whose mean is 0.75, and a task that weighs them otherwise: 0.6 ± 1.96 * 0.1."""
    values = {3: 1.0, 5: 0.0, 6: 1.0, 9: 1.0}
    for given in (values, {}):
        row = named_row(0.6, 0.1, given, 7)
        assert (row["value"], row["stderr"], row["n"]) == (0.6, 0.1, 7)
        assert (row["low"], row["high"]) == pytest.approx((0.404, 0.796), abs=1e-4)
    unknown = named_row(0.6, "N/A", {}, 7)
    assert unknown["value"] == 0.6
    assert all(math.isnan(unknown[name]) for name in ("stderr", "low", "high"))


def test_drift_of_several_texts() -> None:
    """3 nats of 10 tokens, though the texts' own means are 0.25 and 0.5; what is left over is
    2 - 0.3 * 8 and 1 - 0.3 * 2: sqrt(2 / 1 * 0.32) / 10, and t(1) = 12.7062."""
    row = drift_row("law", np.array([[2.0, 8.0], [1.0, 2.0]]), True)
    assert tuple(row) == COLUMNS
    assert (row["domain"], row["trained_on"], row["n"], row["tokens"]) == ("law", True, 2, 10)
    assert (row["drift"], row["stderr"]) == pytest.approx((0.3, 0.08))
    assert (row["low"], row["high"]) == (0.0, pytest.approx(0.3 + 12.7062 * 0.08, rel=1e-5))
    many = drift_row("law", np.tile([[2.0, 8.0], [1.0, 2.0]], (50, 1)), False)
    assert 0 < many["low"] < 0.3 < many["high"] and not many["trained_on"]


def test_drift_of_one_text_has_no_error() -> None:
    mean, stderr = per_token(np.array([2.0]), np.array([8.0]))
    assert mean == 0.25 and math.isnan(stderr)
    row = drift_row("law", np.array([[2.0, 8.0]]), False)
    assert (row["drift"], row["n"], row["tokens"]) == (0.25, 1, 8)
    assert all(math.isnan(row[name]) for name in ("stderr", "low", "high"))
