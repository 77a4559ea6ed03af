"""The promotion rule on numbers worked out by hand, and its properties."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from versatune.mixing.config import ObjectiveParams
from versatune.retraining.config import LimitParams, PromotionParams
from versatune.retraining.promotion import (
    Change,
    accuracy_change,
    judge,
    loss_change,
    mean_change,
)


def change(
    domain: str, value: float, half: float, metric: str = "heldout_loss", n: int = 100
) -> Change:
    return Change(
        metric=metric, domain=domain, value=value, low=value - half, high=value + half,
        stderr=half / 1.96, n=n, champion=2.0, challenger=2.0 * (1 - value),
    )  # fmt: skip


def test_loss_change_by_hand() -> None:
    # Champion 10 + 20 + 30 = 60, challenger 9 + 18 + 27 + ... with one row off: 9 + 18 + 30 = 57.
    found = loss_change("law", np.array([10.0, 20.0, 30.0]), np.array([9.0, 18.0, 30.0]))
    assert found.value == pytest.approx(1 - 57 / 60)
    # Residuals against 0.95 of the champion: -0.5, -1.0, 1.5; their squares sum to 3.5.
    assert found.stderr == pytest.approx(math.sqrt(3 / 2 * 3.5) / 60)
    # Student's quantile at two degrees of freedom is 4.302653; the interval is that of ln 0.95.
    half = 4.302653 * found.stderr / 0.95
    ends = (1 - 0.95 * math.exp(half), 1 - 0.95 * math.exp(-half))
    assert (found.low, found.high) == pytest.approx(ends, rel=1e-6)
    assert (found.champion, found.challenger, found.n) == (20.0, 19.0, 3)


def test_accuracy_change_by_hand() -> None:
    # 10 items: 3 only the challenger got right, 1 only the champion, 6 alike.
    champion = np.array([0, 0, 0, 1, 1, 1, 1, 0, 0, 0], dtype=float)
    challenger = np.array([1, 1, 1, 0, 1, 1, 1, 0, 0, 0], dtype=float)
    found = accuracy_change("law", champion, challenger)
    assert found.value == pytest.approx(0.2)
    centre, p, q = 2 / 12, 4 / 12, 2 / 12
    half = 1.959964 * math.sqrt((p + q - (p - q) ** 2) / 12)
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half), rel=1e-5)


def test_agreement_on_few_items_is_not_certainty() -> None:
    same = np.ones(4)
    found = accuracy_change("law", same, same)
    assert found.value == 0 and found.low < -0.3 and found.high > 0.3


def test_mean_of_two_domains_by_hand() -> None:
    a, b = change("law", 0.04, 1.96 * 0.03, n=11), change("code", 0.02, 1.96 * 0.04, n=21)
    found = mean_change([a, b])
    assert found.value == pytest.approx(0.03)
    assert found.stderr == pytest.approx(0.05 / 2)
    # Welch and Satterthwaite: 0.0025^2 / (0.0009^2 / 10 + 0.0016^2 / 20) = 29.93
    assert found.high - found.value == pytest.approx(2.0424 * 0.025, rel=1e-4)


def test_a_weighted_mean_by_hand() -> None:
    a, b = change("law", 0.04, 1.96 * 0.03, n=11), change("code", 0.02, 1.96 * 0.04, n=21)
    found = mean_change([a, b], {"code": 3.0, "law": 1.0, "other": 5.0})
    assert found.value == pytest.approx((0.04 + 3 * 0.02) / 4)
    assert found.stderr == pytest.approx(math.hypot(0.03, 3 * 0.04) / 4)
    # 0.0153^2 / ((0.03^2)^2 / 10 + (0.12^2)^2 / 20) = 22.40 degrees of freedom
    assert found.high - found.value == pytest.approx(2.0717 * found.stderr, rel=1e-3)
    for wrong in ({"law": 1.0}, {"law": 0.0, "code": 0.0}):
        with pytest.raises(ValueError, match="weights"):
            mean_change([a, b], wrong)


def test_promotion_goes_by_the_declared_weights() -> None:
    """Law gains for certain, code falls within its tolerance; what code alone does is no gain."""
    changes = [change("law", 0.06, 0.01), change("code", -0.01, 0.005)]
    rule = PromotionParams()
    plain = judge(changes, rule, ObjectiveParams())
    assert plain.promote and plain.mean["heldout_loss"].value == pytest.approx(0.025)
    by_code = ObjectiveParams(kind="weighted", weights={"law": 0.0, "code": 1.0})
    verdict = judge(changes, rule, by_code)
    assert not verdict.promote
    assert verdict.reasons[0].startswith("weighted mean held-out loss: worse by 1.00 %")
    lost = change("law", -math.inf, 0.0)
    assert judge([lost, changes[1]], rule, by_code).mean["heldout_loss"].value == -0.01


def test_promotion_goes_by_the_objective_that_training_had() -> None:
    """Law, at 4 nats a token, is 2 % better, code, at 1, 5 % worse: 5.00 becomes 4.97."""
    law = loss_change("law", np.full(50, 8.0), np.full(50, 7.84), np.full(50, 2.0))
    code = loss_change("code", np.full(50, 5.0), np.full(50, 5.25), np.full(50, 5.0))
    assert (law.champion, law.challenger) == pytest.approx((4.0, 3.92))
    assert (code.champion, code.challenger) == pytest.approx((1.0, 1.05))
    rule = PromotionParams(limits={"heldout_loss": LimitParams(tolerance=0.1)})
    found = {
        "mean": judge([law, code], rule, ObjectiveParams()),
        "relative": judge([law, code], rule, ObjectiveParams(kind="relative")),
        "weighted": judge(
            [law, code], rule, ObjectiveParams(kind="weighted", weights={"law": 1, "code": 3})
        ),
    }
    value = {kind: v.mean["heldout_loss"].value for kind, v in found.items()}
    assert value["mean"] == pytest.approx(1 - 4.97 / 5)
    assert value["relative"] == pytest.approx((0.02 - 0.05) / 2)
    assert value["weighted"] == pytest.approx(1 - (3.92 + 3 * 1.05) / 7)
    assert {kind: v.promote for kind, v in found.items()} == {
        "mean": True,
        "relative": False,
        "weighted": False,
    }
    assert found["mean"].mean["heldout_loss"].champion == pytest.approx(2.5)
    assert "as a part of the champion's: worse by 1.50 %" in found["relative"].reasons[0]


def test_a_row_alone_proves_nothing() -> None:
    found = loss_change("law", np.array([2.0]), np.array([1.0]))
    assert found.value == 0.5 and found.low == -math.inf and found.high == math.inf
    assert mean_change([found, change("code", 0.1, 0.01)]).low == -math.inf


@given(
    st.lists(st.floats(0.1, 100), min_size=2, max_size=30),
    st.floats(0.01, 10),
    st.integers(0, 2**32 - 1),
)
def test_loss_change_knows_no_unit_and_lies_in_its_interval(
    champion: list[float], scale: float, seed: int
) -> None:
    before = np.array(champion)
    after = before * np.random.default_rng(seed).uniform(0.5, 1.5, len(before))
    one, other = loss_change("x", before, after), loss_change("x", scale * before, scale * after)
    assert one.value == pytest.approx(other.value) and one.stderr == pytest.approx(other.stderr)
    assert one.low <= one.value <= one.high < 1 + 3 * one.stderr * 12.71 + 1
    assert loss_change("x", before, before).value == 0


def test_one_row_gives_no_interval_in_words_and_no_promotion() -> None:
    verdict = judge([loss_change("law", np.array([2.0]), np.array([1.0]))], PromotionParams())
    assert not verdict.promote
    assert "better by 50.00 % (too few rows for an interval)" in verdict.reasons[0]
    assert "inf" not in " ".join(verdict.reasons)


def test_better_everywhere_is_promoted() -> None:
    verdict = judge([change("law", 0.05, 0.01), change("code", 0.03, 0.01)], PromotionParams())
    assert verdict.promote
    assert verdict.reasons[0].startswith("mean held-out loss: better by 4.00 %")
    assert verdict.reasons[1] == "no domain falls by more than its tolerance"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param(
            [change("law", 0.30, 0.01), change("code", -0.05, 0.01)],
            "code falls by more than 2.00 %",
            id="one domain pays for the mean",
        ),
        pytest.param(
            [change("law", 0.30, 0.01), change("code", -0.01, 0.03)],
            "code may fall by more than 2.00 %",
            id="a fall that is not ruled out",
        ),
        pytest.param(
            [change("law", 0.01, 0.02), change("code", 0.01, 0.02)],
            "which is not certain",
            id="an improvement within its error",
        ),
        pytest.param(
            [change("law", -0.01, 0.001), change("code", -0.01, 0.001)],
            "worse by 1.00 %",
            id="worse, each within tolerance",
        ),
        pytest.param(
            [change("law", 0.0, 0.0), change("code", 0.0, 0.0)],
            "changed by 0.00 %",
            id="the same model",
        ),
    ],
)
def test_what_is_not_promoted(changes: list[Change], words: str) -> None:
    verdict = judge(changes, PromotionParams())
    assert not verdict.promote
    assert any(words in reason for reason in verdict.reasons), verdict.reasons


def test_estimates_decide_where_the_rule_says_so() -> None:
    changes = [change("law", 0.01, 0.05), change("code", -0.01, 0.05)]
    changes.append(change("maths", 0.03, 0.05))
    strict = judge(changes, PromotionParams())
    loose = judge(
        changes,
        PromotionParams(
            evidence="estimate",
            limits={"heldout_loss": LimitParams(tolerance=0.02, evidence="estimate")},
        ),
    )
    assert not strict.promote and loose.promote


def test_a_tolerance_of_its_own_and_a_metric_without_limit() -> None:
    changes = [change("law", 0.30, 0.01), change("code", -0.05, 0.01)]
    changes += [change("law", -0.5, 0.01, "accuracy"), change("code", -0.5, 0.01, "accuracy")]
    rule = PromotionParams(
        limits={"heldout_loss": LimitParams(tolerance=0.01, domains={"code": 0.1})}
    )
    verdict = judge(changes, rule)
    assert verdict.promote and verdict.mean["accuracy"].value == pytest.approx(-0.5)
    assert not judge(changes, PromotionParams()).promote


def test_a_challenger_that_diverged_is_never_promoted() -> None:
    broken = loss_change("law", np.array([1.0, 2.0]), np.array([1.0, math.nan]))
    verdict = judge([broken, change("code", 0.5, 0.01)], PromotionParams(evidence="estimate"))
    assert not verdict.promote and "not finite" in " ".join(verdict.reasons)


@given(
    st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=6),
    st.floats(0, 0.2),
    st.floats(0, 0.3),
)
def test_a_promotion_never_breaks_the_rule(
    values: list[float], half: float, tolerance: float
) -> None:
    changes = [change(f"d{i}", v, half) for i, v in enumerate(values)]
    rule = PromotionParams(limits={"heldout_loss": LimitParams(tolerance=tolerance)})
    verdict = judge(changes, rule)
    if verdict.promote:
        assert np.mean(values) > 0 and min(v - half for v in values) >= -tolerance


def test_refusals() -> None:
    with pytest.raises(ValueError, match="same rows"):
        loss_change("law", np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match="champion's loss"):
        loss_change("law", np.zeros(3), np.ones(3))
    with pytest.raises(ValueError, match="zeros and ones"):
        accuracy_change("law", np.ones(2), np.array([0.5, 1.0]))
    with pytest.raises(ValueError, match="not measured"):
        judge([change("law", 0.1, 0.01)], PromotionParams(improve="accuracy"))
    with pytest.raises(ValueError, match="one metric"):
        mean_change([change("law", 0.1, 0.01), change("law", 0.1, 0.01, "accuracy")])
