"""The paper's summaries on the paper's own table, and changes worked by hand."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from versatune.errors import VersatuneError
from versatune.evaluation.forgetting import (
    changes,
    expansion_summary,
    less_degradation,
    relative_gains,
    transitions,
    verdict,
)
from versatune.evaluation.results import COLUMNS, ITEM_COLUMNS

# Mean of 12 benchmarks of seven models (arXiv 2411.11266, main table): uniform, constant, dynamic.
UNIFORM = [23.88, 29.28, 32.61, 41.50, 43.43, 42.03, 57.56]
CONSTANT = [31.92, 40.76, 41.58, 49.75, 53.01, 46.97, 62.16]
DYNAMIC = [36.26, 45.17, 45.54, 54.30, 57.85, 51.44, 65.70]


def test_the_papers_headline_is_reproduced() -> None:
    """35.20 %, 23.15 % and 9.64 % as far as entries rounded to 0.01 can tell (± 0.03 %)."""
    assert relative_gains(DYNAMIC, UNIFORM).mean() == pytest.approx(0.3520, abs=3e-4)
    assert relative_gains(CONSTANT, UNIFORM).mean() == pytest.approx(0.2315, abs=3e-4)
    assert relative_gains(DYNAMIC, CONSTANT).mean() == pytest.approx(0.0964, abs=3e-4)
    gain_of_means = sum(DYNAMIC) / sum(UNIFORM) - 1
    assert gain_of_means < 0.32, "the gain of the means is another number"


@pytest.mark.parametrize(
    ("values", "baseline"), [([], []), ([1.0], [1.0, 2.0]), ([1.0], [0.0]), ([1.0], [math.nan])]
)
def test_no_relative_gain_without_a_baseline(values: list[float], baseline: list[float]) -> None:
    with pytest.raises(ValueError):
        relative_gains(values, baseline)


def test_expansion_by_hand() -> None:
    found = expansion_summary({"law": -3.0, "medicine": 12.0, "code": 1.0}, "medicine")
    assert found == {"target_gain": 12.0, "others_change": -2.0}
    with pytest.raises(KeyError):
        expansion_summary({"law": 1.0}, "medicine")


def test_less_degradation_in_the_papers_numbers() -> None:
    # VersaTune against 100 % target, mean over five targets.
    assert less_degradation(-16.86, -67.69) == pytest.approx(0.7509, abs=1e-4)
    assert less_degradation(-39.44, -67.69) == pytest.approx(0.4173, abs=1e-4)
    assert math.isnan(less_degradation(-1.0, 0.5))


def test_transitions_count_items_and_not_means() -> None:
    """The mean stays, and yet half of what was known is gone."""
    before, after = np.array([1, 1, 0, 0.0]), np.array([1, 0, 1, 0.0])
    found = transitions(before, after)
    assert found["became_wrong"] == found["became_right"] == 0.25
    assert found["became_wrong_low"] < 0.25 < found["became_wrong_high"]
    with pytest.raises(ValueError, match="3 after"):
        transitions(before, after[:3])


def test_verdicts_need_the_whole_interval() -> None:
    assert verdict(0.1, 0.3) == "better"
    assert verdict(0.1, 0.3, lower_is_better=True) == "worse"
    assert verdict(-0.3, -0.1, lower_is_better=True) == "better"
    assert verdict(-0.1, 0.3) == verdict(0.0, 0.3) == "not distinguishable"
    assert verdict(math.nan, math.nan) == verdict(-math.inf, math.inf) == "not distinguishable"


def rows(model: str, metric: str, value: float, n: int) -> dict[str, Any]:
    empty = dict.fromkeys(COLUMNS)
    where = {"model": model, "domain": "law", "task": "courts", "metric": metric}
    return empty | where | {"value": value, "stderr": 0.1, "n": n}


def items(model: str, metric: str, scores: list[float], weights: list[float]) -> pd.DataFrame:
    found = pd.DataFrame({"item": [f"f:{i}" for i in range(len(scores))], "score": scores})
    found = found.assign(weight=weights, model=model, domain="law", task="courts", metric=metric)
    found["answer"] = None
    return found[list(ITEM_COLUMNS)]


def test_changes_pair_items_by_name_and_not_by_place() -> None:
    table = pd.DataFrame([rows("base", "acc", 0.5, 4), rows("tuned", "acc", 0.75, 4)])
    ones = [1.0] * 4
    shuffled = items("tuned", "acc", [1, 1, 0, 1.0], ones).iloc[[2, 0, 3, 1]]
    scores = pd.concat([items("base", "acc", [1, 0, 1, 0.0], ones), shuffled])
    found = changes(table, scores, "base", "tuned").iloc[0]
    assert (found["change"], found["relative"]) == (0.25, 0.5)
    assert (found["became_wrong"], found["became_right"]) == (0.25, 0.5)
    # 2 became right, 1 wrong: p = 3/6, q = 2/6; 1/6 ± 1.96 sqrt((5/6 - 1/36) / 6)
    half = 1.959964 * math.sqrt((5 / 6 - 1 / 36) / 6)
    assert (found["low"], found["high"]) == pytest.approx((1 / 6 - half, 1 / 6 + half), abs=1e-5)
    assert found["verdict"] == "not distinguishable"


def test_scores_between_zero_and_one_have_the_t_interval_of_their_differences() -> None:
    table = pd.DataFrame([rows("base", "f1", 0.4, 3), rows("tuned", "f1", 0.6, 3)])
    ones = [1.0] * 3
    both = [items("base", "f1", [0.4] * 3, ones), items("tuned", "f1", [0.5, 0.6, 0.7], ones)]
    found = changes(table, pd.concat(both), "base", "tuned").iloc[0]
    # differences 0.1, 0.2, 0.3: sd 0.1, t(2) = 4.3027
    half = 4.3027 * 0.1 / math.sqrt(3)
    assert (found["low"], found["high"]) == pytest.approx((0.2 - half, 0.2 + half), abs=1e-4)
    assert math.isnan(found["became_wrong"])


def test_few_items_that_change_are_no_verdict() -> None:
    """Four of 60 become right and none wrong: an exact McNemar test says 0.125."""
    table = pd.DataFrame([rows("base", "acc", 0.0, 60), rows("tuned", "acc", 4 / 60, 60)])
    ones = [1.0] * 60
    after = items("tuned", "acc", [1.0] * 4 + [0.0] * 56, ones)
    both = [items("base", "acc", [0.0] * 60, ones), after]
    found = changes(table, pd.concat(both), "base", "tuned").iloc[0]
    assert found["low"] < 0 < found["high"] and found["verdict"] == "not distinguishable"


def test_a_loss_that_rises_is_worse_and_weighted_by_tokens() -> None:
    metric = "nats_per_token"
    table = pd.DataFrame([rows("base", metric, 2.0, 3), rows("tuned", metric, 3.0, 3)])
    tokens = [10.0, 20.0, 30.0]
    scores = pd.concat(
        [
            items("base", metric, [20, 40, 60.0], tokens),
            items("tuned", metric, [30, 61, 89.0], tokens),
        ]
    )
    found = changes(table, scores, "base", "tuned").iloc[0]
    assert found["verdict"] == "worse"
    assert found["low"] < 1.0 < found["high"]
    assert math.isnan(found["became_wrong"])


def test_the_interval_of_a_loss_is_that_of_the_log_ratio() -> None:
    """6 and 2 nats of 2 tokens each become 1 and 3: ln(1/2) ± t(1) * 1 (see test_intervals)."""
    metric = "nats_per_token"
    table = pd.DataFrame([rows("base", metric, 2.0, 2), rows("tuned", metric, 1.0, 2)])
    tokens = [2.0, 2.0]
    scores = pd.concat(
        [items("base", metric, [6, 2.0], tokens), items("tuned", metric, [1, 3.0], tokens)]
    )
    found = changes(table, scores, "base", "tuned").iloc[0]
    assert (found["change"], found["relative"]) == (-1.0, -0.5)
    t = 12.7062
    assert found["low"] / 2 == pytest.approx(math.exp(-math.log(2) - t) - 1, abs=1e-9)
    assert found["high"] / 2 == pytest.approx(math.exp(-math.log(2) + t) - 1, rel=1e-4)
    assert found["low"] / 2 > -1, "no loss falls by more than all of it"


@pytest.mark.parametrize("scores", [[0.0, 0.0, 0.0], [2.0, math.nan, 4.0]])
def test_a_loss_without_a_ratio_has_no_interval_and_no_verdict(scores: list[float]) -> None:
    metric, tokens = "nats_per_token", [1.0, 1.0, 1.0]
    table = pd.DataFrame([rows("base", metric, 2.0, 3), rows("tuned", metric, 0.0, 3)])
    both = [items("base", metric, [1, 2, 3.0], tokens), items("tuned", metric, scores, tokens)]
    found = changes(table, pd.concat(both), "base", "tuned").iloc[0]
    assert math.isnan(found["low"]) and math.isnan(found["high"])
    assert found["verdict"] == "not distinguishable"


def test_one_change_has_one_verdict_in_every_unit() -> None:
    """4 bytes a token: bits per byte are nats / (4 ln 2), perplexity exp(nats)."""
    nats, bits = {"base": 2.0, "tuned": 3.0}, 1 / (4 * math.log(2))
    table = pd.DataFrame(
        [
            rows(model, metric, value, 3)
            for model, loss in nats.items()
            for metric, value in (
                ("nats_per_token", loss),
                ("bits_per_byte", loss * bits),
                ("perplexity", math.exp(loss)),
            )
        ]
    )
    tokens = [10.0, 20.0, 30.0]
    scores = pd.concat(
        [
            items("base", "nats_per_token", [20, 40, 60.0], tokens),
            items("tuned", "nats_per_token", [30, 61, 89.0], tokens),
        ]
    )
    found = changes(table, scores, "base", "tuned").set_index("metric")
    assert set(found["verdict"]) == {"worse"}
    loss = found.loc["nats_per_token"]
    assert found.loc["bits_per_byte", "low"] == pytest.approx(loss["low"] * bits)
    assert found.loc["perplexity", "high"] == pytest.approx(
        math.exp(2.0 + loss["high"]) - math.exp(2.0)
    )


def test_items_that_are_not_the_same_for_both_models_are_refused() -> None:
    table = pd.DataFrame([rows("base", "acc", 0.5, 4), rows("tuned", "acc", 0.75, 4)])
    mine, ones = items("base", "acc", [1, 0, 1, 0.0], [1.0] * 4), [1.0] * 3
    fewer = items("tuned", "acc", [1, 1, 0.0], ones)
    other = fewer.assign(item=["g:0", "f:1", "f:2"])
    for theirs, numbers in ((fewer, "4 and 3, 3 in common"), (other, "4 and 3, 2 in common")):
        with pytest.raises(VersatuneError, match=rf"acc of courts \(law\) .*\({numbers}\)"):
            changes(table, pd.concat([mine, theirs]), "base", "tuned")


def test_without_items_the_models_count_as_independent() -> None:
    table = pd.DataFrame([rows("base", "acc", 0.5, 4), rows("tuned", "acc", 0.75, 4)])
    nothing = pd.DataFrame(columns=list(ITEM_COLUMNS))
    found = changes(table, nothing, "base", "tuned").iloc[0]
    assert found["high"] - 0.25 == pytest.approx(1.96 * math.hypot(0.1, 0.1))


def test_a_metric_of_one_model_alone_has_no_change() -> None:
    table = pd.DataFrame([rows("base", "acc", 0.5, 4), rows("tuned", "f1", 0.75, 4)])
    assert changes(table, pd.DataFrame(columns=list(ITEM_COLUMNS)), "base", "tuned").empty


def test_a_baseline_that_loses_nothing_leaves_nothing_to_avoid() -> None:
    assert math.isnan(less_degradation(-1.0, 0.0))


def test_transitions_of_a_single_item_and_of_one_side() -> None:
    assert transitions(np.ones(1), np.zeros(1))["became_wrong"] == 1.0
    found = transitions(np.array([1, 1, 1, 0.0]), np.array([1, 1, 0, 0.0]))
    assert (found["became_wrong"], found["became_right"]) == (0.25, 0.0)


def test_items_with_no_name_in_common_are_refused() -> None:
    table = pd.DataFrame([rows("base", "acc", 0.5, 2), rows("tuned", "acc", 0.5, 2)])
    other = items("tuned", "acc", [1, 0.0], [1.0] * 2).assign(item=["g:0", "g:1"])
    scores = pd.concat([items("base", "acc", [1, 0.0], [1.0] * 2), other])
    with pytest.raises(VersatuneError, match=r"\(2 and 2, 0 in common\)"):
        changes(table, scores, "base", "tuned")


def test_items_of_one_model_alone_leave_two_independent_measurements() -> None:
    table = pd.DataFrame([rows("base", "acc", 0.5, 2), rows("tuned", "acc", 1.0, 2)])
    scores = items("tuned", "acc", [1, 1.0], [1.0] * 2)
    found = changes(table, scores, "base", "tuned").iloc[0]
    half = 1.96 * math.hypot(0.1, 0.1)
    assert (found["low"], found["high"]) == pytest.approx((0.5 - half, 0.5 + half))


def test_a_change_names_what_it_is_of() -> None:
    metric, tokens = "nats_per_token", [1.0] * 3
    table = pd.DataFrame([rows("base", metric, 3.0, 3), rows("tuned", metric, 2.0, 3)])
    both = [
        items("base", metric, [2.9, 3.0, 3.1], tokens),
        items("tuned", metric, [1.9, 2.0, 2.1], tokens),
    ]
    found = changes(table, pd.concat(both), "base", "tuned").iloc[0]
    assert tuple(found[["domain", "task", "metric"]]) == ("law", "courts", metric)
    assert (found["base"], found["tuned"], found["n"]) == (3.0, 2.0, 3)
    assert found["verdict"] == "better", "a loss that falls is better"


def test_only_units_of_the_loss_take_its_interval() -> None:
    """Bits per byte, whose own error says nothing, do; accuracy on the same task does not."""
    metric, ones = "nats_per_token", [1.0] * 4
    wide = {"stderr": 10.0}
    table = pd.DataFrame(
        [
            *(rows("base", metric, 2.0, 4), rows("tuned", metric, 3.0, 4)),
            *(rows("base", "bits_per_byte", 1.0, 4) | wide,),
            *(rows("tuned", "bits_per_byte", 1.5, 4) | wide,),
            *(rows("base", "acc", 0.5, 4), rows("tuned", "acc", 0.75, 4)),
        ]
    )
    scores = pd.concat(
        [
            items("base", metric, [2, 2, 2, 2.0], ones),
            items("tuned", metric, [3, 3.1, 2.9, 3.0], ones),
            items("base", "acc", [1, 0, 1, 0.0], ones),
            items("tuned", "acc", [1, 1, 0, 1.0], ones),
        ]
    )
    found = changes(table, scores, "base", "tuned").set_index("metric")
    loss, bits = found.loc[metric], found.loc["bits_per_byte"]
    assert 0 < loss["low"] < 1 < loss["high"]
    assert (bits["low"], bits["high"]) == pytest.approx((loss["low"] / 2, loss["high"] / 2))
    assert bits["verdict"] == loss["verdict"] == "worse"
    # As in test_changes_pair_items_by_name_and_not_by_place: 1/6 ± 1.96 sqrt((5/6 - 1/36) / 6).
    half = 1.959964 * math.sqrt((5 / 6 - 1 / 36) / 6)
    assert found.loc["acc", "high"] == pytest.approx(1 / 6 + half, abs=1e-5)


def test_a_unit_of_a_loss_that_was_nothing_has_no_interval() -> None:
    metric, ones = "nats_per_token", [1.0] * 3
    of = [("base", metric, 0.0), ("tuned", metric, 1.0)]
    of += [("base", "bits_per_byte", 0.0), ("tuned", "bits_per_byte", 0.5)]
    table = pd.DataFrame([rows(model, name, value, 3) for model, name, value in of])
    scores = pd.concat(
        [items("base", metric, [0, 0, 0.0], ones), items("tuned", metric, ones, ones)]
    )
    found = changes(table, scores, "base", "tuned").set_index("metric").loc["bits_per_byte"]
    assert math.isnan(found["low"]) and math.isnan(found["high"])
    assert found["verdict"] == "not distinguishable"


def test_perplexity_without_its_loss_keeps_its_own_interval() -> None:
    table = pd.DataFrame([rows("base", "perplexity", 8.0, 3), rows("tuned", "perplexity", 7.0, 3)])
    found = changes(table, pd.DataFrame(columns=list(ITEM_COLUMNS)), "base", "tuned").iloc[0]
    assert found["high"] == pytest.approx(-1.0 + 1.96 * math.hypot(0.1, 0.1))
    assert found["verdict"] == "better"
