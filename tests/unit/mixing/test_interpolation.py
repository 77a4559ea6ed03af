"""Which model between base and trained one is taken, by hand."""

from typing import Any

import numpy as np
import pytest

from versatune.mixing.interpolation import choose_part
from versatune.mixing.objective import make_objective
from versatune.mixing.objective_config import ObjectiveParams


def test_choose_part_by_hand() -> None:
    losses = np.array([[2.0, 4.0], [1.6, 4.1], [1.2, 4.3], [1.0, 5.0]])

    def chosen(
        tolerance: Any, targets: list[bool], error: float = 0, rows: Any = losses, margin: float = 0
    ) -> int:
        params = ObjectiveParams.model_validate({"tolerance": tolerance})
        objective = make_objective(params, ("a", "b"), [2.0, 4.0])
        errors = np.full_like(rows, error)
        return choose_part(rows, errors, objective, np.array(targets), margin)[0]

    assert chosen(0.3, [False, False]) == 2  # the least mean, 2.75
    assert chosen(0.3, [True, False]) == 3  # b may rise to 5.2, and a is least there
    assert chosen(0.05, [True, False]) == 1  # b may rise to 4.2
    assert chosen(0.0, [True, False]) == 0
    assert chosen(0.0, [True, False], rows=losses[1:]) == 0  # none within: the least beyond
    # Two errors of 4 % of b's loss allow 4.32.
    assert chosen({"stderrs": 2}, [True, False], error=0.04) == 2
    # b may rise to 4.4: 4.3 is within that by one error of 2 % of it, but not by two.
    assert chosen(0.1, [True, False], error=0.02, margin=1.0) == 2
    assert chosen(0.1, [True, False], error=0.02, margin=2.0) == 1
    # Of models alike the one nearest to the trained one.
    assert chosen(0.0, [True, False], rows=np.array([[1.0, 4.0], [1.0, 4.0]])) == 1


def taken(
    rows: Any, tolerance: float = 0.0, targets: Any = (False, False), **more: Any
) -> tuple[int, str]:
    objective = make_objective(
        ObjectiveParams.model_validate({"tolerance": tolerance, **more}), ("a", "b"), [2.0, 4.0]
    )
    losses = np.array(rows)
    return choose_part(losses, np.full_like(losses, 0.01), objective, np.array(targets))


def test_what_is_said_of_the_choice() -> None:
    """Where none is within, the least beyond counts as a part of the base's loss, not in nats."""
    # a is 5 % beyond in the first, b 3 % in the second, which is more nats.
    number, why = taken([[2.1, 3.0], [1.0, 4.12]])
    assert number == 1
    assert why == "none keeps to the tolerance; this one is 3.00 % beyond"
    assert taken([[2.0, 4.0], [1.0, 4.1]]) == (0, "the best of those within the tolerance")
    # What a target does is not looked at, however far beyond.
    assert taken([[9.0, 4.2], [9.0, 4.4]], targets=(True, False))[1].endswith("5.00 % beyond")


def test_exactly_at_the_tolerance_is_within() -> None:
    assert taken([[2.0, 4.0], [1.0, 4.5], [1.5, 4.0]])[0] == 2


def test_models_are_ranked_by_the_declared_objective_or_by_the_targets_alone() -> None:
    rows = [[1.9, 2.0], [1.0, 3.0]]
    assert taken(rows)[0] == 0  # means of 1.95 and 2
    assert taken(rows, kind="relative")[0] == 1  # 0.725 and 0.625
    assert taken(rows, targets=(True, False))[0] == 1
    assert taken(rows, targets=(False, True))[0] == 0
    assert taken(rows, targets=(True, True))[0] == 1  # as relative


@pytest.mark.parametrize("margin", [0.0, 1.0])
def test_a_margin_is_in_standard_errors_of_the_loss_itself(margin: float) -> None:
    """One error of 2 % of 4.1 is 0.082: 4.182 is beyond the 4.16 that 4 % allow."""
    objective = make_objective(ObjectiveParams(tolerance=0.04), ("a", "b"), [2.0, 4.0])
    losses = np.array([[2.0, 4.0], [1.0, 4.1]])
    found, _ = choose_part(losses, np.full((2, 2), 0.02), objective, np.array([False] * 2), margin)
    assert found == (0 if margin else 1)
