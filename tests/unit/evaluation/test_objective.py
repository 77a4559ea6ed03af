"""The declared objective on rows that results are of: values, tolerances and verdicts by hand."""

import math
from typing import Any

import pandas as pd
import pytest

from tests.unit.evaluation.test_comparison import BASE, LOSSES, line, table
from versatune.comparing.words import spoken
from versatune.evaluation.comparison import summarise
from versatune.evaluation.objective import DeclaredObjective, change_stderrs, reference_parts
from versatune.mixing.config import ObjectiveParams


def declared(parts: dict[str, float] | None = None, **params: Any) -> DeclaredObjective:
    return DeclaredObjective(ObjectiveParams.model_validate(params), parts)


AFTER = {"law": 1.8, "code": 1.0}


@pytest.mark.parametrize(
    ("params", "value"),
    [
        ({"kind": "mean"}, 1.4),
        ({"kind": "relative"}, (1.8 / 3.0 + 1.0 / 1.2) / 2),
        ({"kind": "weighted", "weights": {"law": 1, "code": 3}}, (1.8 + 3 * 1.0) / 4),
        # A reference is the same part of the base's loss here: 1.5 and 0.96.
        ({"kind": "worst"}, (1.8 - 1.5) / 1.8),
    ],
)
def test_values_by_hand(params: dict[str, Any], value: float) -> None:
    parts = {"code": 0.8, "law": 0.5}
    assert declared(parts, **params).value(AFTER, BASE) == pytest.approx(value)


def test_references_are_parts_of_the_base_models_losses_on_their_own_rows() -> None:
    curve = [{"step": 0, "learning": 0.0, "losses": {"law": 4.0}}]
    entry = {"nats_per_token": 3.0, "curve": curve}
    assert reference_parts({"domains": {"law": entry}}) == {"law": 0.75}
    assert reference_parts({"domains": {"law": {"nats_per_token": 3.0}}}) is None
    assert reference_parts(None) is None


def test_a_domain_is_beyond_its_tolerance_when_noise_does_not_explain_it() -> None:
    base = dict.fromkeys(("law", "code", "other"), 2.0)
    after = {"law": 2.3, "code": 2.3, "other": 2.15}
    errors = {"law": 0.01, "code": 0.1, "other": 0.01}
    some = declared(tolerance={"law": 0.1, "code": 0.1, "other": 0.1})
    # Above the limit of 2.2 by 0.1, which is 1.64 x 0.01 x 2.3 and more for law, not for code.
    assert some.beyond(after, base, errors) == ["law"]
    assert declared(tolerance={"stderrs": 20}).beyond(after, base, errors) == []
    assert declared().beyond(after, base, errors) == ["law", "other"]


def test_a_loss_that_is_no_number_is_beyond_any_tolerance() -> None:
    errors = {"law": 0.1, "code": 0.1}
    lost = {"law": math.nan, "code": 1.0}
    some = declared(tolerance={"law": 9.0})
    assert some.beyond(lost, BASE, errors) == ["law"]
    assert math.isnan(some.value(lost, BASE))


@pytest.mark.parametrize(
    ("tolerance", "words"),
    [(0.05, "5 %"), ({"stderrs": 2}, "2 standard errors"), ({"law": 0.1}, "their own")],
)
def test_the_tolerance_in_words(tolerance: Any, words: str) -> None:
    assert declared(tolerance=tolerance).allowance == words


def test_standard_errors_come_from_the_interval_of_the_change() -> None:
    """A fall to exp(-0.2) of the base with standard error 0.03 of its logarithm."""
    ends = [2.0 * (math.exp(-0.2 + sign * 1.959964 * 0.03) - 1) for sign in (-1, 1)]
    found = change_stderrs(pd.DataFrame({"base": [2.0], "low": [ends[0]], "high": [ends[1]]}))
    assert found.tolist() == pytest.approx([0.03])
    assert change_stderrs(pd.DataFrame({"base": [2.0]})).tolist() == [0.0]


def test_a_comparison_is_ranked_and_judged_by_the_objective() -> None:
    """Code alone counts: foster's 0, -0.1 and 0 there are no certain gain, law's -0.2 none at
    all."""
    by_code = declared(kind="weighted", weights={"law": 0, "code": 1})
    gain = line(
        summarise(table(LOSSES, BASE), "uniform", declared=by_code),
        measure="relative_gain",
        strategy="foster",
    )
    assert gain["value"] == pytest.approx(0.1 / 3) and gain["verdict"] == "not distinguishable"
    by_mean = line(
        summarise(table(LOSSES, BASE), "uniform"), measure="relative_gain", strategy="foster"
    )
    assert by_mean["verdict"] == "better"
    judged = summarise(table(LOSSES, BASE), "uniform", declared=by_code)
    assert spoken(judged, by_code.name)[0].startswith("foster, weighted mean held-out loss: +3.33%")
    level = line(
        summarise(table(LOSSES, BASE), "uniform", declared=by_code),
        measure="objective",
        strategy="foster",
    )
    assert level["value"] == pytest.approx((1.0 + 0.9 + 1.1) / 3)
    each = summarise(table(LOSSES, BASE), "uniform", declared=by_code)
    over = line(each, measure="gain_over_each", strategy="uniform", baseline="foster")
    assert over["value"] == pytest.approx(-(0.1 / 0.9) / 3)


def test_gains_in_the_worst_gap_are_in_points() -> None:
    parts = {"law": 0.5, "code": 0.5}
    worst = declared(parts, kind="worst")
    gain = line(
        summarise(table(LOSSES, BASE), "uniform", declared=worst),
        measure="relative_gain",
        strategy="foster",
    )
    # References 1.5 and 0.6; code's gap is the larger one with every seed but the second's.
    gaps = {"uniform": [0.4, 0.4, 0.5 / 1.1], "foster": [0.4, 0.3 / 0.9, 0.5 / 1.1]}
    each = [u - f for u, f in zip(gaps["uniform"], gaps["foster"], strict=True)]
    assert gain["value"] == pytest.approx(sum(each) / 3)


def test_domains_beyond_the_tolerance_are_counted_by_strategy() -> None:
    rising = {
        "uniform": [{"law": 3.2, "code": 1.0}] * 3,
        "foster": [{"law": 3.4, "code": 1.3}] * 3,
    }
    rows = table(rising, BASE)
    half = 0.05
    rows["change_low"] = rows["value"] - rows["base"] - half
    rows["change_high"] = rows["value"] - rows["base"] + half
    summary = summarise(rows, "uniform", declared=declared(tolerance=0.1))
    # Law's limit is 3.3; code's 1.32.
    found = {s: line(summary, measure="beyond_tolerance", strategy=s)["value"] for s in rising}
    assert found == {"uniform": 0.0, "foster": 1.0}
