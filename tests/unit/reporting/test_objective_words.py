"""The headline is about the declared objective, and states its tolerance."""

from typing import Any

import pandas as pd
import pytest

from versatune.evaluation.objective import DeclaredObjective, declared_by
from versatune.mixing.config import ExpandParams, ObjectiveParams, UniformParams
from versatune.reporting import objective, summary


def declared(parts: dict[str, float] | None = None, **params: Any) -> DeclaredObjective:
    return DeclaredObjective(ObjectiveParams.model_validate(params), parts)


def losses(half: float = 0.02, **changes: float) -> pd.DataFrame:
    """From 2.0, each domain changed by so much, give or take ``half``."""
    rows = []
    for domain, change in changes.items():
        low, high = change - half, change + half
        verdict = "better" if high < 0 else "worse" if low > 0 else "not distinguishable"
        rows.append(
            {"domain": domain, "base": 2.0, "tuned": 2.0 + change, "change": change, "low": low}
            | {"high": high, "relative": change / 2, "verdict": verdict, "n": 9}
        )
    return pd.DataFrame(rows)


TABLE = losses(law=0.2, code=-0.4, other=-0.4)


@pytest.mark.parametrize(
    ("params", "sentence", "value"),
    [
        ({"kind": "mean"}, "Mean held-out loss fell by 10.0 %.", "−10.0 %"),
        (
            {"kind": "weighted", "weights": {"law": 1, "code": 0, "other": 0}},
            "Weighted mean held-out loss rose by 10.0 %.",
            "+10.0 %",
        ),
        (
            {"kind": "relative"},
            "Mean held-out loss as a part of the base model's fell by 10.0 %.",
            "−10.0 %",
        ),
        # Gaps to 1.0: from 1 - 1/2 everywhere; law ends at 1 - 1/2.2.
        (
            {"kind": "worst"},
            "Largest gap to the references went from 50.0 % to 54.5 % (law).",
            "50.0 → 54.5 %",
        ),
    ],
)
def test_the_objective_leads(params: dict[str, Any], sentence: str, value: str) -> None:
    parts = dict.fromkeys(("law", "code", "other"), 0.5)
    some = declared(parts, **params)
    found = objective.reached(TABLE, some)
    assert objective.sentence(found, some) == sentence
    assert [tile.value for tile in objective.tile(found, some)] == [value]


def test_an_expansion_is_about_its_targets() -> None:
    table = losses(law=0.2, code=-0.4, other=0.01)
    both = declared_by(ObjectiveParams(), ExpandParams(target=["Code", "other"]), None)
    assert objective.on_targets(table, both) == (
        "Held-out loss of the targets: code fell by 20.0 % and other did not change clearly "
        "(+0.5 %)."
    )
    (tile,) = objective.target_tile(table, both)
    assert (tile.name, tile.value) == ("targets", "−20.0 % / +0.5 %")
    one = declared_by(ObjectiveParams(), ExpandParams(target="law"), None)
    assert objective.on_targets(table, one) == "Held-out loss of the target: law rose by 10.0 %."
    plain = declared_by(ObjectiveParams(), UniformParams(), None)
    assert objective.on_targets(table, plain) is None and objective.target_tile(table, plain) == []
    assert objective.on_targets(table.iloc[:0], both) is None


def test_a_change_of_the_mean_within_noise_is_not_clear() -> None:
    """Each domain +-0.1, so their mean +-0.1 / sqrt(2) = 0.0707."""
    some = declared()
    for change, words in ((-0.06, "did not change clearly (−3.0 %)"), (-0.08, "fell by 4.0 %")):
        found = objective.reached(losses(0.1, law=change, code=change), some)
        assert objective.sentence(found, some) == f"Mean held-out loss {words}."


def test_without_references_the_worst_gap_is_not_told() -> None:
    assert objective.reached(TABLE, declared(kind="worst")) is None
    assert objective.sentence(None, declared(kind="worst")) is None
    assert objective.tile(None, declared(kind="worst")) == []


@pytest.mark.parametrize(
    ("tolerance", "headline", "mood"),
    [
        (0.0, "2 of 3 domains improved, but law got worse by more than noise.", "mixed"),
        (
            0.05,
            "2 of 3 domains improved, but 1 of 3 domains fell more than the tolerance (5 %): law.",
            "mixed",
        ),
        (
            0.2,
            "2 of 3 domains improved, and law got worse within the tolerance (20 %).",
            "good",
        ),
        (
            {"code": 0.2},
            "2 of 3 domains improved, but 1 of 3 domains fell more than the tolerance (their own): "
            "law.",
            "mixed",
        ),
        (
            {"stderrs": 100},
            "2 of 3 domains improved, and law got worse within the tolerance (100 standard "
            "errors).",
            "good",
        ),
    ],
)
def test_the_tolerance_is_stated(tolerance: Any, headline: str, mood: str) -> None:
    said = summary.verdict(TABLE, declared(tolerance=tolerance))
    assert said[:2] == (headline, mood)


def test_where_none_improves_the_tolerance_decides_between_bad_and_unknown() -> None:
    two = losses(law=0.2, code=0.3)
    over = summary.verdict(two, declared(tolerance=0.05))
    assert over[:2] == (
        "No domain improved, and 2 of 2 domains fell more than the tolerance (5 %): law and code.",
        "bad",
    )
    within = summary.verdict(two, declared(tolerance=0.3))
    assert within[1] == "unknown" and "law and code got worse within the tolerance" in within[0]
