"""Strategies that forecast: what they start with, when they stay, what they keep, and resume."""

import json
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from tests.helpers.laws import law, run
from versatune.errors import VersatuneError
from versatune.mixing.config import ExpandParams, MixingLawParams, ObjectiveParams
from versatune.mixing.interface import Context, Decision, Signals, Strategy
from versatune.mixing.law import Law
from versatune.mixing.shares import Array
from versatune.mixing.strategies import StrategyParams, make_strategy
from versatune.mixing.traces import Trace
from versatune.training.mix_runs import mixes

DOMAINS = ("law", "medicine", "code")
COUNTS = np.array([0.5, 0.3, 0.2])
WHOLE = 100.0
"""The learning amount of a training: a hundred steps at the peak rate."""
WIDE = law([0.6, 0.2, 1e-5])
WIDER = law([0.8, 0.05, 1e-5])
FORGETS = law([0.06, 0.08, 0.04], nu=[1e-4, 0.01, 0.02])


def traces_of(truth: Law) -> tuple[Trace, ...]:
    """Four short runs on mixes, a tenth of a training in all."""
    return tuple(run(truth, [mix] * 3, 4.0, noise=1e-3) for mix in mixes(3, 4))


BOLD = {"name": "mixing_law", "law": {"caution": 0.3}}
CONSTRAINED = {"name": "expand", "target": "law", "rule": "constrained"}


def make(spec: dict[str, Any], known: Law | None, **more: Any) -> Strategy:
    params: Any = TypeAdapter(StrategyParams).validate_python(spec)
    context = Context(
        domains=DOMAINS,
        initial=np.array([0.2, 0.2, 0.6]),
        counts=COUNTS,
        base_loss=np.full(3, 1.0),
        traces=() if known is None else traces_of(known),
        learning=WHOLE,
        **more,
    )
    return make_strategy(params, context)


class Run:
    """A training in a world that follows a law, measured with noise."""

    def __init__(self, strategy: Strategy, truth: Law, noise: float, rounds: int = 6) -> None:
        self.strategy, self.truth, self.noise, self.rounds = strategy, truth, noise, rounds
        self.at, self.weights, self.round = truth.start(), strategy.initial(), 0
        self.rng = np.random.default_rng(0)

    @property
    def y(self) -> Array:
        """The true losses."""
        return self.truth.losses(self.at)[0]

    def go_on(self) -> Decision:
        self.round += 1
        self.at = self.truth.after(self.at, self.weights, WHOLE / self.rounds)
        seen = self.y * np.exp(self.noise * self.rng.standard_normal(3))
        error = np.full(3, max(self.noise, 1e-3))
        decision = self.strategy.update(
            Signals(
                self.round,
                10 * self.round,
                self.weights,
                seen,
                since_base_stderr=error,
                learning=WHOLE / self.rounds,
                learning_left=WHOLE * (1 - self.round / self.rounds),
            )
        )
        self.weights = decision.weights
        return decision


def test_measured_slopes_decide_the_first_round_already() -> None:
    shares = make(BOLD, WIDE).initial()
    ends = [WIDE.ends(x, WHOLE)[0][0].mean() for x in (shares, np.full(3, 1 / 3))]
    assert ends[0] < ends[1] - 0.002
    # The third domain hardly learns: its rows go to the others.
    assert shares[2] < 1 / 3 - 0.01


def test_noise_alone_leaves_equal_shares_exactly_as_they_are() -> None:
    """Losses that jump about, and standard errors that say so."""
    run = Run(make({"name": "mixing_law", "explore": 0.0}, None), law([1e-6] * 3), 0.3)
    for _ in range(5):
        np.testing.assert_array_equal(run.go_on().weights, np.full(3, 1 / 3))


def test_what_is_explored_is_known_and_ends() -> None:
    run = Run(make({"name": "mixing_law", "explore": 0.3}, None), law([1e-6] * 3), noise=0.3)
    first = run.strategy.initial()
    np.testing.assert_allclose(np.abs(np.log(3 * first)), 0.3, atol=0.16)
    shares = [run.go_on().weights for _ in range(3)]
    assert not np.allclose(shares[0], 1 / 3, atol=1e-3)
    np.testing.assert_array_equal(shares[2], np.full(3, 1 / 3))


def test_signal_moves_shares_to_where_more_is_won() -> None:
    """From equal shares: the first domain is soon learnt, the third's rows teach nothing."""
    steered = Run(make(BOLD, WIDER), WIDER, noise=0.003)
    uniform = Run(make({"name": "uniform"}, None), WIDER, noise=0.0)
    for each in (steered, uniform):
        while each.round < each.rounds - 1:
            each.go_on()
    assert steered.weights[2] < 1 / 3
    assert steered.y.mean() < uniform.y.mean() - 0.002


def test_without_runs_before_the_rounds_themselves_tell() -> None:
    """The third domain learns nothing: its rows go to the others before the training ends."""
    truth = law([0.1, 0.1, 1e-6])
    spec = {"name": "mixing_law", "explore": 0.6, "law": {"caution": 0.3}}
    steered = Run(make(spec, None), truth, 0.001, rounds=12)
    while steered.round < 10:
        steered.go_on()
    assert steered.weights[2] < 0.3 < 0.34 < min(steered.weights[:2])


def test_the_domain_that_would_fall_is_given_what_keeps_it() -> None:
    run = Run(make({**CONSTRAINED, "margin": 2.0}, FORGETS), FORGETS, noise=0.002)
    shares = [run.strategy.initial(), *(run.go_on().weights for _ in range(6))]
    for weights in shares:
        assert 0.2 - 1e-9 <= weights[0] <= 0.9 + 1e-9
        assert weights[2] > 0.01
    assert shares[1][2] > shares[1][1]
    assert (run.y[1:] <= 1.02).all() and run.y[0] < 0.6


def test_rows_that_would_be_seen_too_often_lower_their_domain_s_share() -> None:
    known = law([0.1, 0.1, 0.1])
    free, scarce = (
        make({"name": "mixing_law", "stay": "uniform"}, known, passes=passes)
        for passes in (None, np.array([3000.0, 1.0, 1.0]))
    )
    np.testing.assert_allclose(free.initial(), np.full(3, 1 / 3), atol=0.01)
    assert scarce.initial()[0] < 0.25


def signals(weights: np.ndarray, **more: Any) -> Signals:
    error = np.full(3, 0.01)
    return Signals(
        1,
        10,
        weights,
        np.array([0.7, 0.99, 0.99]),
        **{
            "since_base_stderr": error,
            "learning": WHOLE / 4,
            "learning_left": 0.75 * WHOLE,
            **more,
        },
    )


def test_what_is_kept_of_the_rounds_is_their_trace() -> None:
    strategy = make({"name": "mixing_law"}, WIDE, passes=np.full(3, 8.0))
    strategy.update(signals(COUNTS, passes=np.array([1.0, 0.6, 0.4])))
    second = signals(COUNTS, passes=np.array([3.0, 0.9, 0.6]), rate=0.5)
    strategy.update(second)
    trace = Trace.from_json(strategy.state_dict()["trace"])
    assert trace.passes.tolist() == [[0, 0, 0], [1.0, 0.6, 0.4], [3.0, 0.9, 0.6]]
    assert trace.rate.tolist() == [0.0, 0.5] and trace.learning.tolist() == [25, 25]
    assert trace.losses[0].tolist() == [1, 1, 1] and trace.losses[2].tolist() == [0.7, 0.99, 0.99]


def test_the_error_since_the_base_is_taken_as_it_will_be_at_the_end() -> None:
    """A quarter of the learning is done: rows that are off by so much end four times as far off."""
    strategy: Any = make(CONSTRAINED, FORGETS)
    strategy.update(signals(COUNTS))
    np.testing.assert_allclose(strategy._doubt, 0.04)
    strategy.update(signals(COUNTS, learning_left=0.0))
    np.testing.assert_allclose(strategy._doubt, 0.01)


def test_a_margin_and_more_noise_leave_the_others_more() -> None:
    known = CONSTRAINED
    shares = []
    for margin, error in ((0.0, 0.01), (2.0, 0.01), (2.0, 0.03)):
        strategy = make({**known, "margin": margin}, FORGETS)
        noise = np.full(3, error)
        weights = np.array([0.8, 0.1, 0.1])
        shares.append(strategy.update(signals(weights, since_base_stderr=noise)).weights[0])
    assert shares[0] > shares[1] + 0.01 > shares[2] + 0.02


def test_a_looser_tolerance_gives_the_target_more() -> None:
    known, weights = {**CONSTRAINED, "margin": 4.0}, np.array([0.8, 0.1, 0.1])
    shares = [
        make(known, FORGETS, objective=ObjectiveParams(tolerance=tolerance))
        .update(signals(weights))
        .weights[0]
        for tolerance in (0.0, 0.1)
    ]
    assert shares[1] > shares[0] + 0.01


def test_the_margin_grows_with_what_is_trained() -> None:
    """What goes wrong early can be made up for: the same measurements leave the target less where
    they come at the end."""
    weights = np.array([0.8, 0.1, 0.1])
    shares = [
        make({**CONSTRAINED, "margin": 2.0}, FORGETS)
        .update(
            signals(
                weights,
                since_base_stderr=np.full(3, 0.03 * (1 - left)),
                learning_left=left * WHOLE,
            )
        )
        .weights[0]
        for left in (0.9, 0.1)
    ]
    assert shares[0] > shares[1] + 0.02


def test_several_targets_share_the_targets_part() -> None:
    spec = {**CONSTRAINED, "target": ["law", "code"]}
    shares = make(spec, None).initial()
    assert shares[0] + shares[2] == pytest.approx(0.7, abs=0.12)


@pytest.mark.parametrize(("error", "best"), [(0.001, False), (0.1, True)])
def test_the_best_round_is_one_in_which_nothing_is_lost_for_certain(
    error: float, best: bool
) -> None:
    strategy = make(CONSTRAINED, None)
    errors = np.full(3, error)
    decision = strategy.update(
        Signals(
            1,
            10,
            strategy.initial(),
            np.array([0.5, 1.02, 0.9]),
            since_base_stderr=errors,
            learning=20.0,
            learning_left=80.0,
        )
    )
    assert decision.best is best


@pytest.mark.parametrize("known", [WIDE, None])
@pytest.mark.parametrize("spec", [{"name": "mixing_law"}, CONSTRAINED])
def test_a_resumed_strategy_goes_on_exactly(spec: dict[str, Any], known: Law | None) -> None:
    run = Run(make(spec, known), FORGETS, noise=0.01)
    for _ in range(3):
        other = make(spec, known)
        other.load_state_dict(json.loads(json.dumps(run.strategy.state_dict())))
        again = Run(other, FORGETS, noise=0.01)
        again.at, again.weights, again.round = run.at, run.weights, run.round
        again.rng.bit_generator.state = run.rng.bit_generator.state
        one, two = run.go_on(), again.go_on()
        np.testing.assert_array_equal(one.weights, two.weights)
        assert one.reason == two.reason and one.best == two.best


def test_without_standard_errors_nothing_is_taken_for_signal() -> None:
    strategy = make({"name": "mixing_law"}, WIDE)
    decision = strategy.update(Signals(1, 1, COUNTS, np.array([0.1, 0.9, 0.9])))
    np.testing.assert_array_equal(decision.weights, COUNTS)
    assert "no standard errors" in decision.reason


def test_nothing_is_steered_when_nothing_is_left() -> None:
    strategy = make({"name": "mixing_law"}, WIDE)
    signals = Signals(
        1, 1, COUNTS, np.full(3, 0.5), since_base_stderr=np.full(3, 0.01), learning=1.0,
        learning_left=0,
    )  # fmt: skip
    np.testing.assert_array_equal(strategy.update(signals).weights, COUNTS)


@pytest.mark.parametrize(
    "given",
    [
        {"target": "law", "rule": "paper", "sigma": 1.0},
        {"target": ["law", "code"], "rule": "constrained", "margin": 2.0},
    ],
)
def test_parameters_written_out_are_read_again(given: dict[str, Any]) -> None:
    """As another process, and a run with changes, get them."""
    params = ExpandParams.model_validate(given)
    assert ExpandParams.model_validate_json(params.model_dump_json()) == params
    assert params.changed({"floor": 0.02}) == ExpandParams.model_validate({**given, "floor": 0.02})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"target": "law", "epsilon": 0.1}, "no use for epsilon: that is of rule 'paper'"),
        ({"target": "law", "rule": "paper", "margin": 1.0}, "no use for margin"),
        ({"target": ["law", "code"], "rule": "paper"}, "several targets need rule: constrained"),
        ({"target": [], "rule": "constrained"}, "must name domains"),
        ({"target": ["law", "law"], "rule": "constrained"}, "each once"),
        (
            {"target": "law", "rule": "constrained", "target_share": {"start": 0.95}},
            "least 0.4 <= start 0.95 <= most 0.9",
        ),
    ],
)
def test_parameters_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ExpandParams.model_validate(given)


@pytest.mark.parametrize("k", [1, 40])
def test_one_domain_and_many(k: int) -> None:
    """One domain has nothing to share; many are worked out in time."""
    context = Context(tuple(f"d{j}" for j in range(k)), counts=np.ones(k), base_loss=np.ones(k))
    strategy = make_strategy(MixingLawParams(), context)
    weights = strategy.initial()
    for number in range(1, 4):
        loss = np.full(k, 0.8**number)
        weights = strategy.update(
            Signals(
                number,
                number,
                weights,
                loss,
                since_base_stderr=np.full(k, 0.01),
                learning=0.1,
                learning_left=0.5,
            )
        ).weights
    assert weights.sum() == pytest.approx(1)
    assert k > 1 or weights[0] == 1


def test_too_many_domains_are_refused() -> None:
    context = Context(tuple(f"d{j}" for j in range(101)), counts=np.ones(101))
    with pytest.raises(VersatuneError, match="101 domains are more than the 100"):
        make_strategy(MixingLawParams(), context)


def test_worst_needs_references() -> None:
    with pytest.raises(VersatuneError, match="references"):
        make({"name": "mixing_law"}, None, objective=ObjectiveParams(kind="worst"))


def test_worst_goes_to_the_domain_that_is_behind() -> None:
    """All learn alike; the second one's reference is far below, so its gap is the largest."""
    alike = law([0.1, 0.1, 0.1])
    strategy = make(
        {"name": "mixing_law", "stay": "uniform"},
        alike,
        objective=ObjectiveParams(kind="worst"),
        reference_loss=np.array([0.5, 0.2, 0.5]),
    )
    shares = strategy.initial()
    assert shares[1] > 0.42
