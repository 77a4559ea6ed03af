"""Steps of rounds: alike, or growing with all of them kept."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from versatune.training import TrainParams
from versatune.training.budget import learning_by_round, rate_by_round
from versatune.training.reference_config import ReferenceParams
from versatune.training.round_steps import round_steps


def test_rounds_alike_are_trainers_epochs() -> None:
    steps = round_steps(8, 50)
    assert steps.of == (50,) * 8
    assert (steps.total, steps.epoch, steps.words) == (400, 50, "8 rounds of 50 steps")
    assert [steps.place(step) for step in (0, 49, 50, 399, 400)] == [
        *((0, 0), (0, 49), (1, 0), (7, 49), (8, 0))
    ]


def test_growing_rounds_by_hand() -> None:
    """12 steps by 1 : 2 : 4 are 1.71, 3.43 and 6.86; they end at 2, 5 and 12."""
    steps = round_steps(3, 4, 2.0)
    assert steps.of == (2, 3, 7) and steps.ends == (2, 5, 12)
    assert (steps.epoch, steps.words) == (1, "3 rounds of 2 to 7 steps, 12 in all")
    assert [steps.place(step) for step in (1, 2, 4, 5, 11, 12)] == [
        *((0, 1), (1, 0), (1, 2), (2, 0), (2, 6), (3, 0))
    ]
    assert round_steps(8, 50, 1.3).of == (16, 24, 24, 40, 48, 64, 80, 104)
    assert round_steps(8, 50, 1.3).epoch == 8


@given(st.integers(1, 12), st.integers(1, 300), st.floats(1, 2))
def test_growing_rounds_keep_all_steps(rounds: int, each: int, growth: float) -> None:
    try:
        steps = round_steps(rounds, each, growth)
    except ValueError:
        assert rounds * each * (growth - 1) < growth**rounds - 1
        return
    assert len(steps.of) == rounds and steps.total == rounds * each and min(steps.of) >= 1
    assert all(n % steps.epoch == 0 for n in steps.of)
    parts = growth ** np.arange(rounds)
    wanted = parts / parts.sum() * steps.total
    # Each end is off by half a unit at most, and a unit is at most half of the first round.
    unit = max(wanted[0] / 2, 1)
    np.testing.assert_allclose(steps.ends, np.cumsum(wanted), atol=unit / 2 + 1e-6)
    assert all(b >= a - unit for a, b in pairwise(steps.of))


def test_a_first_round_of_no_step_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"round_growth 3 the first of 8 rounds.* 24 steps"):
        TrainParams(rounds=8, steps_per_round=3, round_growth=3.0)
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        TrainParams(round_growth=0.5)


def test_the_learning_amounts_are_those_of_the_rounds() -> None:
    """Steps at a constant rate count one each; linear ones fall from 1 to 1/12."""
    growing = {"rounds": 3, "steps_per_round": 4, "round_growth": 2.0, "warmup_ratio": 0.0}
    constant = TrainParams.model_validate({**growing, "lr_scheduler_type": "constant"})
    assert learning_by_round(constant).tolist() == [2, 3, 7]
    linear = TrainParams.model_validate({**growing, "lr_scheduler_type": "linear"})
    np.testing.assert_allclose(learning_by_round(linear) * 12, [12 + 11, 10 + 9 + 8, 28])
    np.testing.assert_allclose(rate_by_round(linear) * 12, [11, 8, 1])
    even = linear.model_copy(update={"round_growth": 1.0})
    assert learning_by_round(linear).sum() == pytest.approx(learning_by_round(even).sum())


def test_what_was_trained_before_is_found_again() -> None:
    assert "round_growth" not in TrainParams().fingerprint_fields()
    assert TrainParams(round_growth=1.5).fingerprint_fields()["round_growth"] == 1.5


def test_references_are_measured_at_even_steps() -> None:
    train = TrainParams(round_growth=1.5)
    assert ReferenceParams().of_run(train).round_growth == 1
    assert ReferenceParams().of_mix(train).round_growth == 1
    with pytest.raises(ValidationError, match="round_growth: set by the references"):
        ReferenceParams(train={"round_growth": 1.5})
