"""The shares a strategy is expected to take are those it takes when losses go as the law says."""

from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from tests.helpers.laws import law, run
from versatune.mixing.config import ConstantParams, StrategyParams
from versatune.mixing.expected import expected_path, over_steps
from versatune.mixing.forecast import Noise, Path, Simulation, follow
from versatune.mixing.interface import Context, RoundMetrics, Signals, Stop, Strategy
from versatune.mixing.law import Law
from versatune.mixing.shares import Array

ONES = np.ones(3)
UNIFORM = ONES / 3
LEARNING = np.array([0.5, 0.3, 0.2])
NOISE = Noise(np.full(3, 0.05), np.full(3, 1e-4))
RATES = np.array([0.8, 0.4, 0.0])
ENDS = (10, 20, 30)
STEEP = law([8.0, 1.0, 0.05])
TRACES = tuple(run(STEEP, [x] * 3, 0.1) for x in ([0.6, 0.2, 0.2], [0.2, 0.2, 0.6]))


def path_of(strategy: dict[str, Any], truth: Law, **known: Any) -> Path:
    params: Any = TypeAdapter(StrategyParams).validate_python(strategy)
    context = Context(
        domains=("law", "medicine", "code"),
        initial=np.array([0.5, 0.3, 0.2]),
        counts=ONES,
        base_loss=ONES,
        learning=1.0,
        **known,
    )
    return expected_path(params, context, truth, LEARNING, RATES, NOISE, ENDS).path


def test_a_fixed_mix_stays_and_spends_all() -> None:
    path = path_of({"name": "constant"}, STEEP)
    assert [part for _, part in path] == LEARNING.tolist()
    assert {tuple(weights) for weights, _ in path} == {(0.5, 0.3, 0.2)}


def test_a_steering_strategy_goes_where_the_law_says_it_pays() -> None:
    path = path_of({"name": "mixing_law"}, STEEP, traces=TRACES)
    assert path[-1][0][1] > 1 / 3 > path[-1][0][2]
    steered, uniform = (follow(STEEP, p)[0].mean() for p in (path, [(UNIFORM, 1.0)]))
    assert steered < uniform * 0.99


def test_foster_moves_by_what_the_rounds_leave_to_learn() -> None:
    """By hand: after round 1 domain j has gamma_j = (l_j - r_j) / l_j, and w_j grows by
    1 + sigma gamma_j before shares are normalised."""
    reference = np.array([0.2, 0.5, 0.9])
    params = {"name": "foster", "start": "uniform", "sigma": 2.0}
    path = path_of(params, STEEP, reference_loss=reference)
    loss = follow(STEEP, [(UNIFORM, 0.5)])[0]
    grown = UNIFORM * (1 + 2.0 * np.maximum((loss - reference) / loss, 0))
    np.testing.assert_allclose(path[1][0], grown / grown.sum())


@pytest.mark.parametrize(
    ("action", "kept", "trained"), [("rollback", 1, 3), ("stop", 3, 3), ("none", 6, 6)]
)
def test_a_training_that_its_guard_ends_spends_less(action: str, kept: int, trained: int) -> None:
    """Rows of law make the others forget: their mean rise is above the threshold from the second
    round on, and goes on for the two that end the training."""
    harmful = law([2.0, 0.0, 0.0], nu=[0.0, 20.0, 20.0])
    params: Any = TypeAdapter(StrategyParams).validate_python(
        {
            "name": "expand",
            "rule": "paper",
            "target": "law",
            "guard": {"action": action, "threshold": 0.2, "patience": 2},
        }
    )
    context = Context(
        domains=("law", "medicine", "code"),
        initial=np.array([0.6, 0.2, 0.2]),
        base_loss=ONES,
        reference_loss=0.1 * ONES,
    )
    learning, rates = np.array([0.05, 0.2, 0.2] * 2), np.zeros(6)
    found = expected_path(params, context, harmful, learning, rates, NOISE, range(10, 70, 10))
    assert (len(found.path), len(found.trained)) == (kept, trained)


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_what_the_rounds_try_is_expected_too(rounds: int) -> None:
    """Only a round that a later one can learn from tries shares."""
    params: Any = TypeAdapter(StrategyParams).validate_python({"name": "mixing_law"})
    context = Context(
        domains=("law", "medicine", "code"), base_loss=ONES, counts=ONES, rounds=rounds
    )
    flat, noise = law([1e-6] * 3), Noise(np.full(3, 10.0), np.full(3, 1e-4))
    path = expected_path(
        params, context, flat, LEARNING[:rounds], RATES[:rounds], noise, ENDS[:rounds]
    ).path
    tried = [not np.allclose(weights, UNIFORM) for weights, _ in path]
    assert tried == [True, True, False][-rounds:] if rounds > 1 else tried == [False]


class Recorder(Strategy):
    """Keeps what it is told, and goes from mix to mix."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, np.array([0.5, 0.3, 0.2]))
        self.told: list[Signals] = []

    def _next(self, now: RoundMetrics) -> tuple[Array, str, Stop | None]:
        self.told.append(now.signals)
        return np.roll(now.weights, 1), "", None


def test_a_strategy_is_told_what_a_training_would_tell_it(monkeypatch: pytest.MonkeyPatch) -> None:
    passes, base = np.array([6.0, 4.0, 2.0]), np.array([2.0, 1.0, 3.0])
    truth = law([2.0, 1.0, 0.5], nu=0.1, tau=0.2, base=base, repeats=2.0)
    noise = Noise(np.array([0.1, 0.2, 1e-6]), np.array([1e-9, 1e-9, 1e-4]))
    context = Context(domains=("law", "medicine", "code"), base_loss=base, passes=passes)
    strategy = Recorder(context)
    monkeypatch.setattr("versatune.mixing.expected.make_strategy", lambda *_: strategy)
    path = expected_path(ConstantParams(), context, truth, LEARNING, RATES, noise, ENDS).path

    mix = np.array([0.5, 0.3, 0.2])
    mixes = [mix, np.roll(mix, 1), np.roll(mix, 2)]
    for (weights, part), wanted, amount in zip(path, mixes, LEARNING, strict=True):
        np.testing.assert_allclose(weights, wanted)
        assert part == amount
    simulation = Simulation(truth.likeliest(), 1.0, passes)
    left, seen = [0.5, 0.2, 0.0], np.zeros(3)
    for i, signals in enumerate(strategy.told):
        simulation.go(mixes[i], LEARNING[i])
        losses = simulation.losses(RATES[i])[0]
        seen = seen + mixes[i] * LEARNING[i] * passes
        assert (signals.round, signals.step, signals.rate) == (i + 1, ENDS[i], RATES[i])
        assert signals.learning == LEARNING[i]
        assert signals.learning_left == pytest.approx(left[i])
        np.testing.assert_allclose(signals.weights, mixes[i])
        np.testing.assert_allclose(signals.validation_loss, losses)
        np.testing.assert_allclose(signals.train_loss, losses)
        np.testing.assert_allclose(signals.passes, seen)
        error = noise.part * np.abs(np.log(losses / base))
        np.testing.assert_allclose(signals.since_base_stderr, [error[0], error[1], 1e-4])
        assert error[2] < 1e-4 < error[0]


def test_rows_are_drawn_by_steps_and_not_by_what_is_learnt() -> None:
    """The second round has half of the learning amount of the first, and as many steps."""
    path = [(np.array([0.7, 0.3]), 20.0), (np.array([0.9, 0.1]), 10.0)]
    np.testing.assert_allclose(over_steps(path, (50, 50)), [0.8, 0.2])
    np.testing.assert_allclose(over_steps(path, (10, 30, 60)), [0.85, 0.15])  # ended early
