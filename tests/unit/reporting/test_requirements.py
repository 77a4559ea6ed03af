"""What a result must reach, and the lines that say what it reached."""

import math
from typing import Any

import pandas as pd
import pytest

from versatune.evaluation.objective import DeclaredObjective
from versatune.reporting.closing import closing_lines, mean_metrics, note
from versatune.reporting.requirements import RequireParams, refusal, unmet


def row(domain: str, metric: str, base: float, tuned: float, verdict: str) -> dict[str, Any]:
    change = tuned - base
    return {
        **{"domain": domain, "task": domain, "metric": metric, "n": 100},
        **{"base": base, "tuned": tuned, "change": change, "low": change, "high": change},
        "verdict": verdict,
    }


RESULTS = pd.DataFrame(
    [
        row("law", "nats_per_token", 2.0, 1.5, "better"),
        row("code", "nats_per_token", 1.0, 1.1, "worse"),
        row("law", "acc", 0.25, 0.5, "better"),
        {**row("law", "acc", 0.25, 0.3, "not distinguishable"), "task": "bar_exam"},
    ]
)


@pytest.mark.parametrize(
    ("require", "missed"),
    [
        ({}, []),
        ({"no_domain_worse": True}, ["loss got worse in code (no_domain_worse)"]),
        ({"max_loss": {"law": 1.5, "code": 1.1}}, []),
        (
            {"max_loss": {"law": 1.49}},
            ["held-out loss of law is 1.5, above 1.49 (max_loss)"],
        ),
        ({"min_accuracy": {"law": 0.4}}, []),  # the mean of 0.5 and 0.3
        (
            {"min_accuracy": {"law": 0.41, "code": 0.1}},
            [
                "accuracy of law is 0.4, below 0.41 (min_accuracy)",
                "code has no accuracy (min_accuracy: 0.1)",
            ],
        ),
    ],
)
def test_what_is_not_met(require: dict[str, Any], missed: list[str]) -> None:
    assert unmet(RESULTS, RequireParams.model_validate(require)) == missed


def test_an_accuracy_that_fell_is_a_domain_that_is_worse() -> None:
    results = pd.DataFrame(
        [row("law", "nats_per_token", 2, 1, "better"), row("law", "acc", 0.5, 0.1, "worse")]
    )
    missed = unmet(results, RequireParams(no_domain_worse=True))
    assert missed == ["accuracy got worse in law (no_domain_worse)"]
    assert refusal(missed) == (
        "the result does not meet report.require: accuracy got worse in law (no_domain_worse)."
    )


def test_what_was_not_measured_meets_nothing() -> None:
    nothing = RESULTS.iloc[:0]
    require = RequireParams(no_domain_worse=True, max_loss={"law": 9.0})
    assert unmet(nothing, require) == [
        "no held-out loss was measured (no_domain_worse)",
        "law has no held-out loss (max_loss: 9)",
    ]
    lost = RESULTS.assign(tuned=math.nan)
    assert len(unmet(lost, RequireParams(max_loss={"law": 9.0}))) == 1


@pytest.mark.parametrize(
    "wrong", [{"min_accuracy": {"law": 60}}, {"max_loss": {"law": -1}}, {"no_domain_worse": "yess"}]
)
def test_impossible_requirements_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"min_accuracy|max_loss|no_domain_worse"):
        RequireParams.model_validate(wrong)


def test_the_last_lines_hold_the_verdict_and_each_domain() -> None:
    lines = closing_lines(RESULTS, DeclaredObjective())
    assert "code" in lines[0] and "improved" in lines[0]
    assert lines[1:] == [
        "      held-out loss    accuracy",
        "law   2.000 → 1.500    25 → 40 %",
        "code  1.000 → 1.100    –",
        "mean  1.500 → 1.300    25 → 40 %",
    ]
    assert "| law | &emsp;2.000 → 1.500 | &emsp;25 → 40 % |" in note(RESULTS, DeclaredObjective())
    assert mean_metrics(RESULTS) == pytest.approx({"mean_loss": 1.3, "mean_accuracy": 0.4})


def test_without_results_the_last_line_says_so() -> None:
    (line,) = closing_lines(RESULTS.iloc[:0], DeclaredObjective())
    assert line.startswith("No verdict")
    assert mean_metrics(RESULTS.iloc[:0]) == {}
