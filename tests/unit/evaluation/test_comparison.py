"""Verdicts over seeds, on comparisons small enough to work out by hand."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from versatune.comparing.words import spoken
from versatune.evaluation.comparison import (
    COMPARISON_COLUMNS,
    SUMMARY_COLUMNS,
    difference_row,
    gains,
    headline,
    scores,
    summarise,
)
from versatune.evaluation.crossed import crossed_stderr, row_errors
from versatune.evaluation.many_verdicts import with_holm
from versatune.evaluation.objective import DeclaredObjective
from versatune.intervals import holm, ratio_stderr
from versatune.mixing.config import ObjectiveParams

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


@pytest.mark.filterwarnings("error")
def test_an_accuracy_that_may_have_fallen_below_0_is_no_loss() -> None:
    seeds = {name: [{"law": 0.1}] * 3 for name in LOSSES}
    wide = table(seeds, {"law": 0.2}, metric="acc").assign(change_low=-0.3, change_high=0.1)
    losses = table(LOSSES, BASE).assign(change_low=-0.2, change_high=-0.1)
    summary = summarise(pd.concat([losses, wide]), "uniform")
    assert set(summary["metric"]) == {LOSS, "accuracy"}


def test_differences_are_paired_by_seed() -> None:
    summary = summarise(table(LOSSES, BASE), baseline="uniform")
    assert tuple(summary.columns) == SUMMARY_COLUMNS
    law = line(summary, measure="value", domain="law", strategy="foster")
    # -0.2 in each of three seeds, although the seeds differ by more than that among themselves:
    # nothing says how far a fourth would differ
    assert law["difference"] == pytest.approx(-0.2)
    assert (law["low"], law["high"]) == (-math.inf, math.inf)
    assert law["verdict"] == "not distinguishable" and law["n_seeds"] == 3
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
    # .2/3, .3/3.2, .2/3.2: mean .0743, standard error .0098, t(2) = 7.6 of 4.30
    assert gain["verdict"] == "better" and gain["p_value"] == pytest.approx(0.0169, abs=1e-3)

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
        "expand": [
            {"law": law, "code": code} for law, code in ((1.21, 1.4), (1.2, 1.5), (1.19, 1.45))
        ],
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


BASES = {
    "": [(2.0, 1.9), (2.2, 1.9)],
    "second": [(3.0, 2.9), (3.2, 3.1), (3.1, 2.85)],
    "third": [(1.0, 0.7), (1.0, 0.5)],
}
"""By base model, for each seed the loss of uniform and that of foster."""


def of_bases(bases: dict[str, list[tuple[float, float]]]) -> pd.DataFrame:
    tables = []
    for name, seeds in bases.items():
        losses = {
            "uniform": [{"law": loss} for loss, _ in seeds],
            "foster": [{"law": loss} for _, loss in seeds],
        }
        tables.append(table(losses, {"law": 4.0}).assign(base_model=name))
    return pd.concat(tables, ignore_index=True)


def test_base_models_are_draws_of_which_each_counts_alike() -> None:
    """Differences -.1, -.3; -.1, -.1, -.25; -.3, -.5: means -.2, -.15 and -.4."""
    summary = summarise(of_bases(BASES), "uniform")
    law = line(summary, measure="value", domain="law", strategy="foster")
    means = np.array([-0.2, -0.15, -0.4])
    assert law["difference"] == pytest.approx(means.mean())
    half = 4.3027 * means.std(ddof=1) / math.sqrt(3)  # t of 2 degrees of freedom, not of 6
    assert law["low"] == pytest.approx(means.mean() - half, abs=1e-4)
    assert (law["n_seeds"], law["n_bases"]) == (7, 3)
    gain = line(summary, measure="relative_gain", strategy="foster")
    parts = [np.mean([(u - f) / u for u, f in seeds]) for seeds in BASES.values()]
    assert gain["value"] == pytest.approx(np.mean(parts))
    assert "7 seeds of 3 base models" in " ".join(spoken(summary))
    one = summarise(of_bases({"": BASES[""]}).drop(columns="base_model"), "uniform")
    assert set(one["n_bases"]) == {1}


def test_base_models_that_happen_to_agree_are_no_surer_than_their_seeds() -> None:
    """Both have a mean of -.2, while each one's two seeds differ: .1 and .2 to either side."""
    apart = {"": [(2.0, 1.9), (2.0, 1.7)], "second": [(2.0, 2.0), (2.0, 1.6)]}
    law = line(
        summarise(of_bases(apart), "uniform"), measure="value", domain="law", strategy="foster"
    )
    stderr = math.hypot(0.1, 0.2) / 2
    assert law["difference"] == pytest.approx(-0.2)
    assert law["high"] == pytest.approx(-0.2 + 12.7062 * stderr, abs=1e-3)


def test_what_holds_for_one_base_is_seldom_called_general() -> None:
    """No difference in the mean of base models, but one in each: 4 bases of 5 seeds."""
    rng = np.random.default_rng(0)
    bases = [str(b) for b in range(4) for _ in range(5)]
    called = 0
    for _ in range(400):
        values = np.repeat(rng.normal(0, 1, 4), 5) + rng.normal(0, 0.3, 20)
        row = difference_row(values, lower_is_better=False, bases=bases)
        called += row["verdict"] != "not distinguishable"
    assert 0.02 < called / 400 < 0.08


def test_more_base_models_do_not_lessen_the_error_from_rows() -> None:
    _, items, _ = three_domains()
    other = items.assign(score=-2 * items["score"])  # together they would cancel out in part
    both = pd.concat([items.assign(base_model=""), other.assign(base_model="second")])
    one = row_errors(items, "accuracy").stderrs(LOSS, "foster", "uniform")
    found = row_errors(both, "accuracy").stderrs(LOSS, "foster", "uniform")
    assert found == pytest.approx({name: 1.5 * error for name, error in one.items()})


def test_holm_by_hand() -> None:
    # sorted .01 .02 .03 .2 times 4 3 2 1, none below the one before
    assert holm([0.2, 0.01, math.nan, 0.03, 0.02]) == pytest.approx(
        [0.2, 0.04, math.nan, 0.06, 0.06], nan_ok=True
    )
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("verdict", ["better", "worse"])
def test_a_verdict_that_fails_among_many_is_none(verdict: str) -> None:
    summary = pd.DataFrame(
        {
            "strategy": ["foster", "foster", "odm"],
            "baseline": "uniform",
            "metric": LOSS,
            "measure": "gain",
            "domain": ["law", "code", "law"],
            "p_value": [0.04, 0.01, 0.6],
            "verdict": [verdict, verdict, "not distinguishable"],
        }
    )
    made = with_holm(summary)
    assert made["p_holm"].tolist() == pytest.approx([0.08, 0.03, 0.6])
    assert made["verdict"].tolist() == ["not distinguishable", verdict, "not distinguishable"]


def test_the_error_of_bases_is_at_least_that_of_the_seeds_within_them() -> None:
    # All bases have the mean 2, so they tell of no spread; variances 2 / 2, 8 / 2 and 0 within.
    differences = np.array([1.0, 3.0, 0.0, 4.0, 2.0, 2.0])
    mean, stderr, _ = crossed_stderr(differences, 0.0, list("aabbcc"))
    assert (mean, stderr) == pytest.approx((2.0, math.sqrt(1 + 4) / 3))


def by_row(
    values: dict[str, np.ndarray], tokens: np.ndarray, domain: str = "law"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``values``: strategy -> nats of each seed's rows, shape (seeds, rows)."""
    losses = {
        name: [{domain: float(nats.sum() / tokens.sum())} for nats in seeds]
        for name, seeds in values.items()
    }
    rows = [
        {
            "strategy": name,
            "seed": seed,
            "domain": domain,
            "task": "held_out",
            "metric": LOSS,
            "item": f"row {i}",
            "score": value,
            "weight": tokens[i],
        }
        for name, seeds in values.items()
        for seed, nats in enumerate(seeds)
        for i, value in enumerate(nats)
    ]
    return table(losses, {domain: 3.0}), pd.DataFrame(rows)


def test_the_draw_of_rows_counts_beside_that_of_seeds() -> None:
    tokens = np.array([1.0, 3.0, 2.0])
    uniform = np.array([[1.0, 4.0, 3.0]] * 3)
    foster = uniform - np.array([[0.2, 0.6, 1.0], [0.2, 0.6, 1.0], [0.2, 0.6, 1.0]])
    comparison, items = by_row({"uniform": uniform, "foster": foster}, tokens)
    found = line(
        summarise(comparison, "uniform", items=items),
        measure="value",
        domain="law",
        strategy="foster",
    )
    # 1.8 nats in 6 tokens: -.3; the rows' rests 0.1, 0.3, -0.4: sqrt(3 / 2 * .26) / 6; t(2)
    half = 4.3027 * math.sqrt(1.5 * 0.26) / 6
    assert found["difference"] == pytest.approx(-0.3)
    assert (found["low"], found["high"]) == pytest.approx((-0.3 - half, -0.3 + half), abs=1e-5)
    assert found["verdict"] == "not distinguishable"
    assert found["not_worse_by"] == pytest.approx(half - 0.3, abs=1e-5)


def test_no_difference_is_seldom_called_one_over_seeds_rows_and_strategies() -> None:
    """Four strategies alike but for noise of seeds and rows: a false verdict in 5 % of worlds."""
    wrong = plain = 0
    for world in range(40):
        rng = np.random.default_rng(world)
        tokens = rng.integers(2, 20, 30).astype(float)
        values = {
            name: tokens
            * (
                2
                + rng.normal(0, 0.05, (4, 1))
                + rng.normal(0, 0.2, 30)
                + rng.normal(0, 0.05, (4, 30))
            )
            for name in ("uniform", "a", "b", "c")
        }
        comparison, items = by_row(values, tokens)
        found = summarise(comparison, "uniform", items=items)
        found = found[(found["measure"] == "relative_gain")]
        wrong += bool(found["verdict"].isin(["better", "worse"]).any())
        seeds_alone = summarise(comparison, "uniform")
        plain += bool((seeds_alone.query("measure == 'relative_gain'")["p_value"] < 0.05).any())
    assert wrong <= 5  # 2 of 40, and chance
    assert plain >= 10  # what seeds alone would have claimed


def test_the_gains_of_a_pair_are_one_test() -> None:
    """Three strategies make three pairs, although each stands in the table both ways round."""
    rng = np.random.default_rng(0)
    losses = {
        name: [{"law": level + rng.normal(0, 0.02)} for _ in range(5)]
        for name, level in (("uniform", 2.0), ("a", 1.9), ("b", 1.99))
    }
    found = summarise(table(losses, {"law": 3.0}), "uniform")
    each = found[found["measure"] == "gain_over_each"]
    there = each.set_index(["strategy", "baseline"])
    pairs = [("a", "uniform"), ("b", "uniform"), ("a", "b")]
    p = sorted(max(there["p_value"][x, y], there["p_value"][y, x]) for x, y in pairs)
    wanted = np.minimum(1, np.maximum.accumulate(np.array(p) * [3, 2, 1]))
    assert sorted(there["p_holm"][x, y] for x, y in pairs) == pytest.approx(list(wanted))
    assert all(there["p_holm"][x, y] == there["p_holm"][y, x] for x, y in pairs)


def test_what_is_not_worse_is_so_within_a_margin() -> None:
    losses = {
        "uniform": [{"law": 2.0}, {"law": 2.1}, {"law": 2.2}],
        "foster": [{"law": 2.01}, {"law": 2.09}, {"law": 2.2}],
    }
    summary = summarise(table(losses, {"law": 3.0}), "uniform")
    margin = line(summary, measure="relative_gain", strategy="foster")["not_worse_by"]
    assert margin > 0
    (said,) = spoken(summary)
    assert said.endswith(f"not distinguishable; not worse by more than {margin:.2%}")


def test_pairs_are_matched_by_seed_and_not_by_their_order_in_the_table() -> None:
    """Law falls by 0.2 with every seed, so the seeds alone give no error: other pairs would."""
    shares = {name: [{"law": s["law"] - 1.5, "code": 0.4} for s in v] for name, v in LOSSES.items()}
    both = pd.concat([table(LOSSES, BASE), table(shares, BASE, metric="acc")])
    order = {"uniform": [2, 0, 1], "foster": [0, 1, 2]}
    turned = pd.concat(
        [
            both[(both["strategy"] == name) & (both["seed"] == seed)]
            for name, seeds in order.items()
            for seed in seeds
        ]
    )
    keys = ["metric", "measure", "domain", "strategy", "baseline"]
    found, wanted = (
        summarise(part, "uniform", target="law").set_index(keys).sort_index()
        for part in (turned, both)
    )
    pd.testing.assert_frame_equal(found, wanted)
    law = wanted.loc[(LOSS, "value", "law", "foster", "uniform")]
    assert (law["low"], law["high"]) == (-math.inf, math.inf)


def test_the_headline_names_measure_metric_and_strategy() -> None:
    found = headline(summarise(table(LOSSES, BASE), "uniform"))
    means = [(3.0, 2.8), (3.2, 2.9), (3.2, 3.0)]
    gain = np.mean([(u - f) / u for u, f in means])
    assert found.pop(f"relative_gain/{LOSS}/foster") == pytest.approx(gain)
    assert found == {f"beyond_tolerance/{LOSS}/{name}": 0.0 for name in ("uniform", "foster")}


def test_gains_of_losses_and_of_accuracies_have_opposite_signs() -> None:
    assert gains(LOSS, {"law": 1.5}, {"law": 2.0}) == {"law": 0.5}
    assert gains("accuracy", {"law": 0.75}, {"law": 0.5}) == {"law": 0.25}


def test_the_error_of_a_ratio_by_hand() -> None:
    ones = np.ones(2)
    # R = 2, rests -1 and 1: sqrt(2 / 1 * 2) / 2
    assert ratio_stderr(np.array([1.0, 3.0]), ones) == pytest.approx(1.0)
    # R = 4, rests -1 and 1 again, over a total weight of 1
    assert ratio_stderr(np.array([1.0, 3.0]), ones / 2) == pytest.approx(2.0)
    assert ratio_stderr(np.array([1.0]), np.ones(1)) == 0.0
    assert ratio_stderr(ones, np.zeros(2)) == 0.0


def three_domains() -> tuple[pd.DataFrame, pd.DataFrame, float]:
    """The rows' rests of the test above, once in law, twice in code, four times in art."""
    tokens, parts = np.array([1.0, 3.0, 2.0]), []
    for domain, factor in (("law", 1), ("code", 2), ("art", 4)):
        uniform = np.array([[1.0, 4.0, 3.0]] * 3)
        foster = uniform - factor * np.array([[0.2, 0.6, 1.0]] * 3)
        parts.append(by_row({"uniform": uniform, "foster": foster}, tokens, domain))
    comparison, items = (pd.concat(frames) for frames in zip(*parts, strict=True))
    return comparison, items, math.sqrt(1.5 * 0.26) / 6


def test_each_measure_has_the_error_of_the_rows_it_is_of() -> None:
    """Seeds agree, so t(2) = 4.3027 times the rows' errors: e, 2e, 4e in the three domains."""
    comparison, items, error = three_domains()
    summary = summarise(comparison, "uniform", target="law", items=items)
    sums = {
        ("value", "law"): 1.0,
        ("value", "all"): math.sqrt(1 + 4 + 16) / 3,
        ("target_gain", "law"): 1.0,
        ("others_change", "all"): math.sqrt(4 + 16),
    }
    for (measure, domain), times in sums.items():
        found = line(summary, metric=LOSS, measure=measure, domain=domain, strategy="foster")
        half = (found["high"] - found["low"]) / 2
        assert half == pytest.approx(4.3027 * times * error, rel=1e-4), measure
    gain = line(summary, measure="relative_gain", strategy="foster")
    # Mean loss of the baseline: 8 nats in 6 tokens in every domain.
    wanted = 4.3027 * math.sqrt(21) / 3 * error / (8 / 6)
    assert (gain["high"] - gain["low"]) / 2 == pytest.approx(wanted, rel=1e-4)


def test_the_draw_of_rows_counts_for_accuracies_too() -> None:
    """Two items become right of four: differences 1, 1, 0, 0 have the error sqrt(4/3 * 1) / 4."""
    answers = {"uniform": [0.0, 0.0, 1.0, 0.0], "foster": [1.0, 1.0, 1.0, 0.0]}
    seeds = {name: [{"law": float(np.mean(v))}] * 3 for name, v in answers.items()}
    rows = [
        {"strategy": name, "seed": seed, "domain": "law", "task": "questions", "metric": "acc"}
        | {"item": f"q{i}", "score": score, "weight": 1.0}
        for name, scores in answers.items()
        for seed in range(3)
        for i, score in enumerate(scores)
    ]
    summary = summarise(
        table(seeds, {"law": 0.1}, metric="acc"), "uniform", items=pd.DataFrame(rows)
    )
    found = line(summary, measure="value", domain="law", strategy="foster")
    half = 4.3027 * math.sqrt(4 / 3) / 4
    assert (found["low"], found["high"]) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-4)


def test_a_row_without_a_score_counts_nowhere() -> None:
    tokens = np.array([5.0, 1.0, 3.0, 2.0])
    uniform = np.array([[math.nan, 1.0, 4.0, 3.0]] * 3)
    foster = uniform - np.array([[0.0, 0.2, 0.6, 1.0]] * 3)
    _, items = by_row({"uniform": uniform, "foster": foster}, tokens)
    error = row_errors(items, "accuracy").stderrs(LOSS, "foster", "uniform")
    assert error == pytest.approx({"law": math.sqrt(1.5 * 0.26) / 6})


def test_what_was_spared_is_matched_by_seed() -> None:
    """A quarter of the baseline's degradation with every seed: 0.75 for certain."""
    lost = [1.0, 0.8, 0.6]
    losses = {
        "target_only": [{"law": 1.0, "code": 1.2 + x} for x in lost],
        "expand": [{"law": 1.2, "code": 1.2 + x / 4} for x in lost],
    }
    both = table(losses, BASE)
    turned = both.sort_values(["strategy", "seed"], ascending=[True, False])
    turned = pd.concat([turned.iloc[:6], both[both["strategy"] == "target_only"]])
    found = line(
        summarise(turned, "target_only", target="law"),
        measure="less_degradation",
        strategy="expand",
    )
    assert tuple(found[["value", "value_low", "value_high"]]) == pytest.approx((0.75,) * 3)
    assert found["n_seeds"] == 3


def test_other_objectives_have_a_line_of_their_own_and_the_errors_of_their_rows() -> None:
    comparison, items, _ = three_domains()
    weights = {"law": 2.0, "code": 1.0, "art": 1.0}
    weighted = DeclaredObjective(ObjectiveParams(kind="weighted", weights=weights))
    plain, own = (
        summarise(comparison, "uniform", items=items, declared=declared)
        for declared in (DeclaredObjective(), weighted)
    )
    assert "objective" not in set(plain["measure"])
    found = line(own, measure="objective", strategy="foster", metric=LOSS)
    # Falls of .3, .6, 1.2 from 8/6; half of the weight on law
    assert found["difference"] == pytest.approx(-(0.3 / 2 + 0.6 / 4 + 1.2 / 4))
    gain = line(own, measure="relative_gain", strategy="foster", metric=LOSS)
    assert gain["value"] == pytest.approx(0.6 / (8 / 6))
    # The seeds agree, so that all error is that of rows, of each domain as much as it counts.
    each = [line(plain, strategy="foster", domain=d, metric=LOSS, measure="value") for d in weights]
    errors = [e["high"] - e["difference"] for e in each]
    half = math.hypot(errors[0] / 2, errors[1] / 4, errors[2] / 4)
    assert found["high"] - found["difference"] == pytest.approx(half)
    assert gain["high"] - gain["value"] == pytest.approx(half / (8 / 6))
    relative = DeclaredObjective(ObjectiveParams(kind="relative"))
    own = summarise(comparison, "uniform", items=items, declared=relative)
    found = line(own, measure="objective", strategy="foster", metric=LOSS)
    base = comparison[comparison["metric"] == LOSS].groupby("domain")["base"].first()
    parts = [e / base[d] / 3 for e, d in zip(errors, weights, strict=True)]
    assert found["high"] - found["difference"] == pytest.approx(math.hypot(*parts))


@pytest.mark.parametrize(("low", "high", "count"), [(0.1, 0.5, 1.0), (-1.0, 1.6, 0.0)])
def test_a_domain_is_beyond_its_tolerance_by_more_than_noise(
    low: float, high: float, count: float
) -> None:
    """Law rises by 0.3 from 3; the error of ln 1.1 is ln(3.5/3.1) / 3.92 = .031, or .21."""
    comparison = table({"foster": [{"law": 3.3, "code": 1.0}] * 3}, BASE)
    law = comparison["domain"] == "law"
    comparison = comparison.assign(change_low=-0.3, change_high=-0.1)
    comparison.loc[law, ["change_low", "change_high"]] = (low, high)
    found = line(summarise(comparison, "foster"), measure="beyond_tolerance", strategy="foster")
    assert found["value"] == count


def test_a_verdict_must_hold_for_all_pairs_at_once() -> None:
    """p = .0169 of one pair is enough; of three such pairs Holm makes .0507."""
    alone = line(
        summarise(table(LOSSES, BASE), "uniform"), measure="relative_gain", strategy="foster"
    )
    assert alone["verdict"] == "better"
    assert (alone["value_low"], alone["value_high"]) == (alone["low"], alone["high"])
    more = LOSSES | {"a": LOSSES["foster"], "b": LOSSES["foster"]}
    among = line(
        summarise(table(more, BASE), "uniform"), measure="relative_gain", strategy="foster"
    )
    assert among["p_holm"] == pytest.approx(3 * alone["p_value"])
    assert among["verdict"] == "not distinguishable"


def test_losses_are_those_of_held_out_rows() -> None:
    found = table({"uniform": [{"law": 2.0}]}, {"law": 3.0})
    other = found.assign(task="wikitext", value=9.0)
    accuracy = found.assign(metric="acc", value=0.5)
    assert scores(pd.concat([found, other, accuracy]), LOSS) == {("uniform", 0): {"law": 2.0}}


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_an_accuracy_that_may_fall_to_nothing_gives_no_warning() -> None:
    losses = table({"foster": [{"law": 3.3, "code": 1.0}] * 3}, BASE)
    both = pd.concat(
        [losses, losses.assign(metric="accuracy", task="questions", base=0.2, value=0.1)]
    )
    both = both.assign(change_low=-0.3, change_high=-0.1).reset_index(drop=True)
    beyond = line(summarise(both, "foster"), measure="beyond_tolerance", metric=LOSS)
    assert beyond["value"] == 1, "law rose by a tenth"
