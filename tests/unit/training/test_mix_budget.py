"""Runs on mixes keep to a budget: counted by hand, shortened in order, and said."""

from typing import Any

import numpy as np
import pytest

from versatune.artifacts import FolderRef
from versatune.data.store import TokenizedSplit
from versatune.modeling.heldout import chosen_rows
from versatune.training import ReferenceParams, TrainParams
from versatune.training.mix_budget import MixBudget, mix_budget
from versatune.training.reference_config import MixShape


def trained(steps: int, **given: Any) -> TrainParams:
    """8 rounds of rows of 64 tokens, 4 a step."""
    return TrainParams.model_validate(
        {
            "rounds": 8,
            "steps_per_round": steps // 8,
            "max_length": 64,
            "per_device_train_batch_size": 4,
            "heldout_rows_per_domain": 16,
            **given,
        }
    )


def budgeted(store: FolderRef, steps: int, budget: float | None, **given: Any) -> MixBudget:
    references = ReferenceParams(mixes=4, budget=budget, train={"per_device_train_batch_size": 2})
    return mix_budget(store, references, trained(steps, **given))


def heldout_tokens(store: FolderRef, rows: int | None) -> float:
    split = TokenizedSplit.load(store, "steering")
    return float(split.lengths[np.concatenate(chosen_rows(split, rows))].sum())


def test_cost_is_counted_in_trained_tokens_of_which_measuring_is_a_third(
    tiny_store: FolderRef,
) -> None:
    found = budgeted(tiny_store, 400, None)
    assert found.runs == found.asked == MixShape(4, 9, 3, 16, None)
    whole, measured = 400 * 4 * 64, heldout_tokens(tiny_store, 16) / 3
    assert found.control == pytest.approx(9 * measured / whole)
    assert found.part == pytest.approx(4 * (9 * 2 * 64 + 4 * measured) / whole)
    assert not found.notes() and not found.warnings()


def test_a_budget_that_holds_all_changes_nothing(tiny_store: FolderRef) -> None:
    free, held = budgeted(tiny_store, 8000, None), budgeted(tiny_store, 8000, 0.1)
    assert held.runs == free.runs == MixShape(4, 198, 3, 16, None)
    assert free.part + free.control < 0.1 and not held.notes() and not held.warnings()


@pytest.mark.parametrize("steps", [400, 2000, 8000])
@pytest.mark.parametrize("budget", [0.02, 0.1])
@pytest.mark.parametrize("rows", [4, None])
def test_runs_cost_no_more_than_the_budget_leaves_them(
    tiny_store: FolderRef, steps: int, budget: float, rows: int | None
) -> None:
    found = budgeted(tiny_store, steps, budget, heldout_rows_per_domain=rows)
    assert found.part <= max(budget - found.control, budget / 2) + 1e-12
    beyond = found.part + found.control > budget + 1e-9
    assert beyond == any("more than references.budget" in line for line in found.warnings())
    if found.runs.number:
        assert found.runs.number in (2, 4) and found.runs.measured in (1, 2, 3)
        assert found.runs.steps >= 8 and found.runs.steps % found.runs.measured == 0
        assert found.runs.steps <= found.asked.steps


def test_fewer_rows_come_before_fewer_steps_and_fewer_runs(tiny_store: FolderRef) -> None:
    assert budgeted(tiny_store, 400, 0.12).runs == MixShape(4, 8, 2, 8, None)
    assert budgeted(tiny_store, 4000, 0.2).runs == MixShape(4, 99, 3, 16, None)
    shorter = budgeted(tiny_store, 4000, 0.04).runs
    assert shorter.number == 4 and 9 <= shorter.steps < 96
    assert budgeted(tiny_store, 4000, 0.008).runs.number == 2
    assert budgeted(tiny_store, 4000, 0.001).runs == MixShape(0, 0, 0, None, None)


def test_a_person_is_told_what_was_shortened_and_that_nothing_fits(tiny_store: FolderRef) -> None:
    (note,) = budgeted(tiny_store, 4000, 0.04).notes()
    assert "references.budget (4% of the training): 4 runs on mixes of" in note
    none = budgeted(tiny_store, 4000, 0.001)
    assert not none.notes()
    assert "no room for two runs on mixes of 9 steps" in none.warnings()[0]


def test_measuring_alone_can_be_more_than_the_budget(tiny_store: FolderRef) -> None:
    found = budgeted(tiny_store, 80, 0.1, heldout_rows_per_domain=None)
    assert found.control > 0.1
    assert "Lower train.rounds, train.heldout_rows_per_domain" in found.warnings()[-1]
