"""The learning amount of each round is what transformers' schedule gives its steps."""

from pathlib import Path

import numpy as np
import pytest

from versatune.training import TrainParams
from versatune.training.budget import learning_by_round
from versatune.training.trainer import arguments


def of(**changes: object) -> np.ndarray:
    given = {"rounds": 8, "steps_per_round": 50, "warmup_ratio": 0.0, **changes}
    return learning_by_round(TrainParams.model_validate(given))


def test_a_constant_rate_gives_every_step_one() -> None:
    np.testing.assert_allclose(of(lr_scheduler_type="constant"), 50)


def test_cosine_leaves_little_after_half_of_the_rounds() -> None:
    """The parts left after rounds 1 to 7: half of (1 - t - sin(pi t) / pi) by hand."""
    parts = of()
    assert parts.sum() == pytest.approx(200, abs=1)
    left = 1 - np.cumsum(parts)[:-1] / parts.sum()
    np.testing.assert_allclose(left, [0.75, 0.53, 0.33, 0.18, 0.08, 0.02, 0.003], atol=0.01)


def test_a_constant_rate_with_a_cool_down_keeps_most_for_later() -> None:
    """100 steps: 80 at the peak, then 1, .95, ... .05; the second half has 30 + 10.5 of 90.5."""
    parts = of(rounds=2, lr_scheduler_type="warmup_stable_decay", decay_ratio=0.2)
    np.testing.assert_allclose(parts, [50, 40.5])
    cosine = of(rounds=2)
    assert parts[1] / parts.sum() > 0.44 > 2 * cosine[1] / cosine.sum()
    late = of(rounds=2, lr_scheduler_type="warmup_stable_decay", warmup_ratio=0.3, decay_ratio=0.9)
    assert late.sum() < parts.sum() and np.isfinite(late).all()


def test_warm_up_counts_less() -> None:
    """A tenth of 100 steps rises from 0 by tenths: 0 + .1 + ... + .9, then 90 whole steps."""
    parts = of(rounds=2, lr_scheduler_type="constant_with_warmup", warmup_ratio=0.1)
    np.testing.assert_allclose(parts, [4.5 + 40, 50])


def test_the_trainer_is_given_the_same_cool_down(tmp_path: Path) -> None:
    params = TrainParams(rounds=2, steps_per_round=50, lr_scheduler_type="warmup_stable_decay")
    assert arguments(params, tmp_path).lr_scheduler_kwargs == {
        "num_decay_steps": 20,
        "decay_type": "linear",
    }
    assert arguments(TrainParams(), tmp_path).lr_scheduler_kwargs == {}
