"""Strategies that forecast: their small rules by hand, and what they say."""

import re
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from tests.helpers.laws import law
from tests.unit.mixing.test_steering import (
    BOLD,
    CONSTRAINED,
    COUNTS,
    FORGETS,
    WHOLE,
    WIDE,
    make,
    signals,
)
from versatune.mixing.config import MixingLawParams
from versatune.mixing.interface import Context, Signals
from versatune.mixing.steering import NO_STDERR, TRIES, learns_effects, too_many_domains
from versatune.mixing.strategies import StrategyParams, make_strategy
from versatune.mixing.traces import Trace

SAID = r"forecast (\d\.\d{4}) at the end, (\d\.\d{4}) better with more (\w+)"
TIGHTEST = (
    r"targets at (\d\.\d{3}) of the shares(?:, on the way to \d\.\d{3})?; (\w+) is forecast to "
    r"end ([+-]\d+\.\d) % against"
)


@pytest.mark.parametrize(
    ("spec", "learns"),
    [
        ({"name": "mixing_law"}, True),
        (CONSTRAINED, True),
        ({"name": "expand", "target": "law", "rule": "paper"}, False),
        ({"name": "foster"}, False),
        ({"name": "uniform"}, False),
    ],
)
def test_which_strategies_fit_a_law(spec: dict[str, Any], learns: bool) -> None:
    params: Any = TypeAdapter(StrategyParams).validate_python(spec)
    assert learns_effects(params) is learns


def test_a_hundred_domains_are_taken() -> None:
    context = Context(tuple(f"d{j}" for j in range(100)), counts=np.ones(100))
    assert make_strategy(MixingLawParams(), context).initial().sum() == pytest.approx(1)
    said = too_many_domains("expand", 101)
    assert said.startswith("strategy 'expand' fits a law for each domain after each round, and 101")
    assert "more than the 100 it can take" in said


def test_the_first_two_rounds_explore_by_the_bits_of_the_domains_numbers() -> None:
    """A factor of e^0.3 up or down: of domain j by bit 0 of j in the first, by bit 1 in the
    second round."""
    strategy = make({"name": "mixing_law", "explore": 0.3}, None)
    first = np.exp(0.3 * np.array([1, -1, 1]))
    np.testing.assert_allclose(strategy.initial(), first / first.sum(), rtol=1e-6)
    noise = np.full(3, 10.0)
    second = np.exp(0.3 * np.array([1, 1, -1]))
    decision = strategy.update(signals(np.full(3, 1 / 3), since_base_stderr=noise))
    np.testing.assert_allclose(decision.weights, second / second.sum(), rtol=1e-6)
    assert decision.reason.endswith(f"no shares are clearly better; {TRIES}")
    decision = strategy.update(signals(np.full(3, 1 / 3), since_base_stderr=noise))
    np.testing.assert_allclose(decision.weights, np.full(3, 1 / 3))
    assert decision.reason.endswith("no shares are clearly better")


@pytest.mark.parametrize(
    ("rounds", "explores"),
    [(1, (False, False)), (2, (True, False)), (3, (True, True)), (None, (True, True))],
)
def test_a_round_that_nothing_learns_from_tries_nothing(
    rounds: int | None, explores: tuple[bool, bool]
) -> None:
    strategy = make({"name": "mixing_law"}, None, rounds=rounds)
    first = strategy.initial()
    decision = strategy.update(signals(first, since_base_stderr=np.full(3, 10.0)))
    found = [not np.allclose(x, 1 / 3) for x in (first, decision.weights)]
    assert found == [*explores] and decision.reason.endswith(TRIES) is explores[1]


def test_of_one_domain_nothing_is_tried() -> None:
    strategy = make_strategy(MixingLawParams(), Context(("a",), counts=np.ones(1)))
    assert strategy.initial() == [1.0]
    for _ in range(2):
        told = Signals(
            1, 1, np.ones(1), np.ones(1), since_base_stderr=np.ones(1), learning_left=1.0
        )
        assert TRIES not in strategy.update(told).reason


@pytest.mark.parametrize(("known", "back"), [(None, True), (WIDE, False)])
def test_what_was_tried_does_not_stay_without_standard_errors(known: Any, back: bool) -> None:
    """Nothing can be learnt from it. Shares by runs before the training are no trial."""
    strategy = make({"name": "mixing_law"}, known)
    first = strategy.initial()
    decision = strategy.update(signals(first, since_base_stderr=None))
    assert decision.reason == NO_STDERR and np.abs(first - 1 / 3).max() > 0.01
    np.testing.assert_allclose(decision.weights, np.full(3, 1 / 3) if back else first)


def test_the_reason_is_of_the_laws_that_the_shares_are_of() -> None:
    """Of the likeliest law code's rows teach nothing, by all others they teach most."""
    strategy: Any = make({"name": "mixing_law"}, WIDE)
    known = law([0.6, 0.2, 1e-5])
    known.numbers[1:] = known.numbers[1:, ::-1]
    outlook, more = strategy._outlook(known, WHOLE), np.array([0.2, 0.3, 0.5])
    said = strategy._reason(outlook, more, more)
    stay, then = (outlook.ends(x).mean() for x in (np.full(3, 1 / 3), more))
    assert said == f"forecast {then:.4f} at the end, {stay - then:.4f} better with more code"
    worse = strategy._reason(outlook, more[::-1], more)
    assert worse.endswith("at the end, hardly better with more law")


def test_a_domain_without_a_share_to_stay_at_is_not_the_one_with_more() -> None:
    strategy: Any = make({"name": "mixing_law", "stay": "proportional"}, WIDE)
    strategy._stay = np.array([0.5, 0.5, 0.0])
    said = strategy._reason(strategy._outlook(WIDE, WHOLE), np.array([0.6, 0.4, 0.0]), COUNTS)
    assert "with more law" in said


def test_a_move_is_a_part_of_the_way_in_logarithms() -> None:
    """sqrt(old * new), normalised, for a part of a half; the whole way is another's shares."""
    old = np.array([0.6, 0.3, 0.1])
    moved, whole = (
        make({**BOLD, "law": {"caution": 0.3, "move": move}}, WIDE).update(signals(old)).weights
        for move in (0.5, 1.0)
    )
    half = np.sqrt(old * whole)
    np.testing.assert_allclose(moved, half / half.sum(), rtol=1e-6)


def test_what_is_said_of_a_forecast() -> None:
    decision = make(BOLD, WIDE).update(signals(np.full(3, 1 / 3)))
    found = re.fullmatch(SAID, decision.reason)
    assert found is not None
    end, gain, name = float(found[1]), float(found[2]), found[3]
    assert 0 < gain < end < 1 and end + gain < 1
    assert name == ("law", "medicine", "code")[int(np.argmax(decision.weights))]
    # Of a bolder objective the numbers are its own: the same losses, as parts of themselves.
    quiet = make({"name": "mixing_law"}, WIDE).update(
        signals(np.full(3, 1 / 3), since_base_stderr=np.full(3, 10.0))
    )
    assert re.fullmatch(r"forecast \d\.\d{4} at the end; no shares are clearly better|" + SAID,
                        quiet.reason)  # fmt: skip


def test_what_is_said_of_limits() -> None:
    decision = make(CONSTRAINED, FORGETS).update(signals(np.array([0.7, 0.15, 0.15])))
    found = re.search(TIGHTEST, decision.reason)
    assert found is not None and decision.reason.endswith(" its tolerance, the tightest")
    assert float(found[1]) == pytest.approx(decision.weights[0], abs=6e-4)
    assert 0.4 <= float(found[1]) <= 0.9 and found[2] in ("medicine", "code")
    assert float(found[3]) <= 0 and "can't" not in decision.reason
    every = make({**CONSTRAINED, "target": ["law", "medicine", "code"]}, FORGETS)
    assert every.update(signals(COUNTS)).reason == "targets at 1.000 of the shares"


def test_targets_are_scored_by_parts_of_their_base_losses() -> None:
    """0.75 and 0.8 are the means of l / l(0); the sums of the losses go the other way."""
    params: Any = TypeAdapter(StrategyParams).validate_python(
        {**CONSTRAINED, "target": ["law", "code"]}
    )
    context = Context(
        domains=("law", "medicine", "code"), counts=COUNTS, base_loss=np.array([1.0, 2.0, 4.0])
    )
    strategy = make_strategy(params, context)
    best = []
    for number, loss in enumerate(([0.5, 2.0, 4.0], [0.9, 2.0, 2.8], [0.5, 2.0, 3.6]), start=1):
        error = np.full(3, 0.01)
        seen = Signals(number, number, COUNTS, np.array(loss), since_base_stderr=error)
        best.append(strategy.update(seen).best)
    assert best == [True, False, True]


def test_rounds_that_say_nothing_of_learning_count_as_one_each() -> None:
    strategy = make({"name": "mixing_law"}, None)
    strategy.update(signals(COUNTS, learning=None, learning_left=None))
    assert Trace.from_json(strategy.state_dict()["trace"]).learning.tolist() == [1.0]
    np.testing.assert_allclose(strategy._doubt, 0.01)  # type: ignore[attr-defined]


def test_what_is_said_where_nothing_is_learnt() -> None:
    decision = make({"name": "mixing_law"}, None).update(Signals(1, 1, COUNTS, np.full(3, 0.5)))
    assert decision.reason == NO_STDERR and decision.stop is None
    done = make({"name": "mixing_law"}, None).update(signals(COUNTS, learning_left=-1.0))
    assert done.reason == "nothing is left to steer"
    np.testing.assert_array_equal(done.weights, COUNTS)
    unknown = make_strategy(MixingLawParams(), Context(("a", "b", "c"), counts=COUNTS))
    first = unknown.update(signals(COUNTS))
    assert first.reason == f"first measurement: no change to learn from yet; {TRIES}"
    second = np.exp(0.2 * np.array([1, 1, -1]))  # the trial that the second round makes anyway
    np.testing.assert_allclose(first.weights, second / second.sum())
    assert "no change" not in unknown.update(signals(COUNTS)).reason


def test_doubt_grows_from_what_is_done_to_the_whole() -> None:
    """Half of a training of 100 is done: twice the error; beyond its end it stays as it is."""
    strategy: Any = make(CONSTRAINED, None)
    for left, factor in ((WHOLE / 2, 2.0), (WHOLE, 1.0), (2 * WHOLE, 1.0), (0.2 * WHOLE, 1.25)):
        strategy.update(signals(COUNTS, learning_left=left))
        np.testing.assert_allclose(strategy._doubt, 0.01 * factor)
