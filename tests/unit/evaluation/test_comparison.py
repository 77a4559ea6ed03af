"""Verdicts over seeds, on comparisons small enough to work out by hand."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from versatune.evaluation.comparison import (
    COMPARISON_COLUMNS,
    SUMMARY_COLUMNS,
    difference_row,
    scores,
    summarise,
)
from versatune.pipelines.compare.nodes import spoken

LOSS = "nats_per_token"


def table(
    losses: dict[str, list[dict[str, float]]], base: dict[str, float], metric: str = LOSS
) -> pd.DataFrame:
    """``losses``: strategy -> for each seed, the number by domain."""
    rows: list[dict[str, Any]] = []
    for strategy, seeds in losses.items():
        for seed, domains in enumerate(seeds):
            for domain, value in domains.items():
                row = dict.fromkeys(COMPARISON_COLUMNS) | {
                    "strategy": strategy,
                    "seed": seed,
                    "domain": domain,
                    "task": "held_out" if metric == LOSS else "questions",
                    "metric": metric,
                    "value": value,
                    "base": base[domain],
                }
                rows.append(row)
    return pd.DataFrame(rows)


LOSSES = {
    "uniform": [{"law": 2.0, "code": 1.0}, {"law": 2.2, "code": 1.0}, {"law": 2.1, "code": 1.1}],
    "foster": [{"law": 1.8, "code": 1.0}, {"law": 2.0, "code": 0.9}, {"law": 1.9, "code": 1.1}],
}
BASE = {"law": 3.0, "code": 1.2}


def line(summary: pd.DataFrame, **where: Any) -> pd.Series:
    found = summary
    for name, value in where.items():
        found = found[found[name] == value]
    assert len(found) == 1, found
    return found.iloc[0]


def test_a_group_of_the_harness_does_not_count_beside_its_members() -> None:
    found = table({"uniform": [{"law": 0.4}]}, {"law": 0.2}, metric="acc")
    group = found.assign(task="mmlu (group)", value=0.9)
    assert scores(pd.concat([found, group]), "accuracy") == {("uniform", 0): {"law": 0.4}}


def test_differences_are_paired_by_seed() -> None:
    summary = summarise(table(LOSSES, BASE), baseline="uniform")
    assert tuple(summary.columns) == SUMMARY_COLUMNS
    law = line(summary, measure="value", domain="law", strategy="foster")
    # -0.2 in each of three seeds, although the seeds differ by more than that among themselves
    assert law["difference"] == pytest.approx(-0.2)
    assert law["low"] == pytest.approx(-0.2) and law["high"] == pytest.approx(-0.2)
    assert law["verdict"] == "better" and law["n_seeds"] == 3
    code = line(summary, measure="value", domain="code", strategy="foster")
    # 0, -0.1, 0: mean -1/30, sd 0.0577, t(2) = 4.3027
    half = 4.3027 * math.sqrt(1 / 300) / math.sqrt(3)
    assert code["low"] == pytest.approx(-1 / 30 - half, abs=1e-4)
    assert code["high"] == pytest.approx(-1 / 30 + half, abs=1e-4)
    assert code["verdict"] == "not distinguishable"
    own = line(summary, measure="value", domain="law", strategy="uniform")
    assert own["value"] == pytest.approx(2.1) and math.isnan(own["difference"])


def test_the_relative_gain_is_a_mean_of_gains_and_a_falling_loss_is_one() -> None:
    summary = summarise(table(LOSSES, BASE), baseline="uniform")
    gain = line(summary, measure="relative_gain", strategy="foster")
    means = [(3.0, 2.8), (3.2, 2.9), (3.2, 3.0)]
    assert gain["value"] == pytest.approx(np.mean([(u - f) / u for u, f in means]))
    assert gain["value"] == pytest.approx(gain["difference"])
    assert gain["verdict"] == "better"

    shares = {
        "uniform": [{"law": 0.2, "code": 0.4}, {"law": 0.3, "code": 0.5}],
        "foster": [{"law": 0.3, "code": 0.6}, {"law": 0.3, "code": 0.6}],
    }
    accuracies = table(shares, {"law": 0.1, "code": 0.1}, metric="acc")
    gain = line(summarise(accuracies, "uniform"), measure="relative_gain", strategy="foster")
    assert gain["metric"] == "accuracy"
    assert gain["value"] == pytest.approx((0.5 + 0.125) / 2)


def test_expansion_counts_target_and_others_apart() -> None:
    """From law 3.0, code 1.2, with the target law; a falling loss is a gain."""
    worse = {
        "target_only": [{"law": 1.0, "code": 2.2}] * 3,
        "expand": [{"law": 1.2, "code": code} for code in (1.4, 1.5, 1.45)],
    }
    summary = summarise(table(worse, BASE), baseline="target_only", target="law")
    gain = line(summary, measure="target_gain", strategy="expand")
    assert gain["value"] == pytest.approx(1.8) and gain["difference"] == pytest.approx(-0.2)
    assert gain["domain"] == "law" and gain["verdict"] == "worse"
    others = line(summary, measure="others_change", strategy="expand")
    assert others["value"] == pytest.approx(-0.25)
    assert others["difference"] == pytest.approx(0.75) and others["verdict"] == "better"
    spared = line(summary, measure="less_degradation", strategy="expand")
    assert spared["value"] == pytest.approx(1 - 0.25 / 1.0)
    # -0.2, -0.3, -0.25 beside -1.0 always: t(2) = 4.3027, standard error 0.05 / sqrt(3)
    half = 4.3027 * 0.05 / math.sqrt(3)
    assert spared["value_low"] == pytest.approx(0.75 - half, abs=1e-5)
    assert spared["value_high"] == pytest.approx(0.75 + half, abs=1e-5)
    two = summarise(
        table({name: seeds[:2] for name, seeds in worse.items()}, BASE), "target_only", "law"
    )
    assert math.isnan(line(two, measure="less_degradation", strategy="expand")["value_low"])


def test_fewer_than_three_seeds_get_no_verdict_and_no_interval() -> None:
    """Two seeds that agree to the last digit would have an interval of no width."""
    for n in (1, 2):
        few = {name: seeds[:n] for name, seeds in LOSSES.items()}
        summary = summarise(table(few, BASE), "uniform")
        found = line(summary, measure="value", domain="law", strategy="foster")
        assert found["difference"] == pytest.approx(-0.2)
        assert summary["verdict"].isna().all()
        ends = summary[["low", "high", "value_low", "value_high"]]
        assert ends.isna().all(axis=None)
        seeds = "1 seed" if n == 1 else "2 seeds"
        for said in spoken(summary):
            assert said.endswith(f"% against uniform ({seeds}; no verdict below 3)"), said
        assert len(spoken(summary)) == 1


def test_only_seeds_that_both_have_are_paired() -> None:
    uneven = {"uniform": LOSSES["uniform"], "foster": LOSSES["foster"][:2]}
    found = line(
        summarise(table(uneven, BASE), "uniform"), measure="value", domain="law", strategy="foster"
    )
    assert found["n_seeds"] == 2


def test_a_domains_accuracy_is_the_mean_of_its_tasks() -> None:
    one = table({"uniform": [{"law": 0.2}]}, {"law": 0.1}, metric="acc")
    two = one.assign(task="more", metric="exact_match", value=0.6)
    norm = one.assign(metric="acc_norm", value=0.9)
    found = scores(pd.concat([one, two, norm]), "accuracy")
    assert found["uniform", 0]["law"] == pytest.approx(0.4)
    alone = norm.assign(task="by length")
    found = scores(pd.concat([one, norm, alone]), "accuracy")
    assert found["uniform", 0]["law"] == pytest.approx((0.2 + 0.9) / 2)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=8), st.booleans())
def test_turning_the_differences_round_turns_the_verdict_round(
    values: list[float], lower: bool
) -> None:
    there = difference_row(np.array(values), lower_is_better=lower)
    back = difference_row(-np.array(values), lower_is_better=lower)
    opposite = {"better": "worse", "worse": "better"}
    assert back["verdict"] == opposite.get(there["verdict"], there["verdict"])
    if len(values) < 3:
        assert there["verdict"] is None and math.isnan(there["low"]) and math.isnan(there["high"])
    else:
        assert there["low"] <= there["difference"] <= there["high"]
