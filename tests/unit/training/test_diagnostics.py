"""What a training gives reason to doubt is said once, with the parameter to change."""

from typing import Any

import pandas as pd
import pytest
from pydantic import TypeAdapter

from versatune.mixing.strategies import StrategyParams
from versatune.training.diagnostics import lowest_rounds, reference_warnings, training_warnings

FOSTER = {"name": "foster"}


def history(losses: dict[str, list[float]], gamma: dict[str, float], reason: str = "r") -> Any:
    """A row a round and domain; round 0 is the base model, which has no gamma."""
    return pd.DataFrame(
        [
            {
                "round": r,
                "step": 5 * r,
                "domain": d,
                "validation_loss": loss,
                "learnable_potential": gamma[d] if r else None,
                "reason": reason,
            }
            for d, series in losses.items()
            for r, loss in enumerate(series)
        ]
    )


def warned(table: pd.DataFrame, references: Any = None, strategy: Any = FOSTER) -> list[str]:
    return training_warnings(
        table, references, TypeAdapter(StrategyParams).validate_python(strategy)
    )


FALLING = {"law": [3.0, 2.5, 2.2, 2.0], "code": [2.0, 1.5, 1.3, 1.2]}
BOTH = {"law": 0.2, "code": 0.1}


def test_a_training_without_doubt_is_not_warned_about() -> None:
    assert warned(history(FALLING, BOTH)) == []


def test_references_that_end_at_their_limit_are_named_once_together() -> None:
    entries = {
        d: {"nats_per_token": 1.0, "step": 120, "steps_run": 120, "at_limit": cut}
        for d, cut in (("law", True), ("code", False), ("other", True))
    }
    (said,) = reference_warnings({"domains": entries})
    assert said.startswith("the reference runs of law and other ended at their limit of 120 steps")
    assert said.endswith("Raise references.max_steps.")
    resting = {d: entry | {"still_falling": False} for d, entry in entries.items()}
    assert reference_warnings({"domains": resting}) == []
    entries = {d: entry | {"at_limit": False} for d, entry in entries.items()}
    assert reference_warnings({"domains": entries}) == []


def test_references_that_were_switched_off_are_not_warned_about() -> None:
    nothing = {"nats_per_token": None, "bits_per_byte": None, "step": None}
    assert reference_warnings({"mode": "none", "domains": {"law": nothing}}) == []


def test_a_reference_above_the_loss_is_named_with_both_numbers() -> None:
    references = {"domains": {"law": {"nats_per_token": 2.6}, "code": {"nats_per_token": 1.0}}}
    (said,) = warned(history(FALLING, {"law": 0.0, "code": 0.1}), references)
    assert said.startswith("gamma of law was 0 in every round")
    assert "law: reference 2.600, loss 2.500 at most" in said
    assert "code" not in said and "references.max_steps" in said


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        (FOSTER, "`foster` trained as `constant` would have. Raise references.max_steps"),
        ({"name": "foster", "potential_source": "progress"}, "(no held-out loss fell)"),
        ({"name": "expand", "rule": "paper", "target": "law"}, "`expand` never opened its gate"),
        ({"name": "doremi"}, "every reference lies above the loss"),
    ],
)
def test_gammas_that_are_all_0_are_said_once(strategy: Any, words: str) -> None:
    (said,) = warned(history(FALLING, {"law": 0.0, "code": 0.0}), None, strategy)
    assert said.startswith("every gamma was 0 in every round") and words in said


@pytest.mark.parametrize(
    ("gammas", "strategy", "words"),
    [
        ([[0.4, 0.0, 0.0, 0.0], [0.2, 0.0, 0.0, 0.0]], FOSTER,
         "every gamma was 0 in the last 3 of 4 rounds (every reference lies above the loss)"),
        ([[0.4, 0.0, 0.0, 0.0], [0.2, 0.3, 0.0, 0.0]], FOSTER,
         "every gamma was 0 in the last 2 of 4 rounds"),
        ([[0.4, 0.3, 0.2, 0.1], [0.2, 0.3, 0.0, 0.0]], FOSTER,
         "gamma of code was 0 in the last 2 of 4 rounds, since the reference lies above the loss "
         "of training (code: reference 2.700, loss 2.500 at most)"),
        ([[0.4, 0.3, 0.2, 0.0], [0.2, 0.3, 0.1, 0.0]], FOSTER, None),  # reached in the end
        ([[0.0, 0.0, 0.0, 0.1], [0.0, 0.0, 0.0, 0.1]], FOSTER, None),
        ([[0.4, 0.0, 0.0, 0.0], [0.2, 0.0, 0.0, 0.0]],
         {"name": "foster", "potential_source": "progress"}, None),
    ],
)  # fmt: skip
def test_gammas_that_were_0_in_the_later_rounds(
    gammas: list[list[float]], strategy: Any, words: str | None
) -> None:
    losses = {d: [5.0, 4.0, 3.0, 2.5, 2.0] for d in ("law", "code")}
    table = history(losses, BOTH)
    for domain, values in zip(losses, gammas, strict=True):
        mine = (table["domain"] == domain) & (table["round"] > 0)
        table.loc[mine, "learnable_potential"] = values
    said = warned(table, {"domains": {"code": {"nats_per_token": 2.7}}}, strategy)
    assert len(said) == (words is not None)
    assert words is None or words in said[0]


def test_gammas_say_nothing_about_a_constrained_expansion() -> None:
    table = history(FALLING, {"law": 0.0, "code": 0.0})
    assert warned(table, None, {"name": "expand", "target": "law", "rule": "constrained"}) == []


@pytest.mark.parametrize("name", ["uniform", "constant", "odm", "mixing_law"])
def test_strategies_that_do_not_go_by_gamma_are_not_warned_about_it(name: str) -> None:
    assert warned(history(FALLING, {"law": 0.0, "code": 0.0}), None, {"name": name}) == []


@pytest.mark.parametrize(
    ("mean", "words"),
    [
        ([3.0, 2.0, 2.4, 2.5], "lowest after round 1 (2.000) and is 2.500 after round 3"),
        ([3.0, 2.0, 1.9, 2.4], None),  # a round ago: that may be noise
        ([3.0, 2.0, 2.015, 2.019], None),  # a rise of 1 % is what another seed makes
        ([3.0, 2.0, 2.015, 2.022], "lowest after round 1 (2.000) and is 2.022 after round 3"),
        ([3.0, 3.2], "lowest before training (3.000) and is 3.200 after round 1"),
        ([3.0, 2.0, 1.9, 1.8], None),
    ],
)
def test_a_mean_loss_that_was_lowest_rounds_ago(mean: list[float], words: str | None) -> None:
    table = history({"law": [m + 0.5 for m in mean], "code": [m - 0.5 for m in mean]}, BOTH)
    said = warned(table)
    assert len(said) == (words is not None)
    assert words is None or (words in said[0] and "train.learning_rate" in said[0])


def test_a_rollback_has_taken_the_lower_one_already() -> None:
    reason = "guard: ...; back to round 1, the best within it"
    assert warned(history({"law": [3.0, 2.0, 2.4, 2.5], "code": [1.0] * 4}, BOTH, reason)) == []


def test_the_round_of_the_lowest_loss_of_each_domain() -> None:
    table = history({"law": [3.0, 2.0, 2.4], "code": [2.0, 1.5, 1.5]}, BOTH)
    assert lowest_rounds(table) == {"law": 1, "code": 1}
