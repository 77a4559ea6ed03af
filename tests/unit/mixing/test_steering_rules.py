"""Strategies that forecast: each rule alone, nearly all of them on a law that is known."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from tests.helpers.laws import law
from versatune.mixing.config import ObjectiveParams
from versatune.mixing.interface import Context, RoundMetrics, Signals
from versatune.mixing.law_fit import fit
from versatune.mixing.lookahead import Bounds, best_shares, protective_shares
from versatune.mixing.steering import NO_STDERR, _part_way
from versatune.mixing.strategies import StrategyParams, make_strategy
from versatune.mixing.traces import Trace

NAMES = ("law", "medicine", "code")
BASE = np.array([1.0, 4.0, 1.0])
MIX = np.array([0.5, 0.3, 0.2])
WHOLE = 100.0
FLOOR = 0.9 * 4e-4
"""Of a law of :mod:`tests.helpers.laws` whose floor is not given, as a part of its base."""

# Losses end 2 and 5 % above the base for MIX: (1 + nu F)^(1/4), F what the others got.
RISES = law([1e-6] * 3, [1e-4, (1.02**4 - 1) / 70, (1.05**4 - 1) / 80], base=BASE)
# All learn alike: (1 + 3 x)^(-1/2), from 1.
LEARNS = law([0.03] * 3)
# Few rows of their own keep the others below their limits, many do not below half of them.
KEEPS = law([0.06, 0.08, 0.04], nu=[1e-4, 0.01, 0.02])


def make(spec: dict[str, Any], **more: Any) -> Any:
    params: Any = TypeAdapter(StrategyParams).validate_python(spec)
    given = {"domains": NAMES, "counts": MIX, "base_loss": BASE, "learning": WHOLE, **more}
    return make_strategy(params, Context(**given))


def constrained(target: Any = "law", **more: Any) -> dict[str, Any]:
    return {
        "name": "expand",
        "rule": "constrained",
        "target": target,
        "explore": 0.0,
        **more,
    }


def told(loss: Any, error: Any, left: float | None = None) -> RoundMetrics:
    loss, none = np.array(loss), np.zeros(3)
    signals = Signals(1, 10, MIX, loss, since_base_stderr=error, learning_left=left)
    return RoundMetrics(signals, MIX, loss, none, none)


@pytest.mark.parametrize(
    ("target", "counts", "start"),
    [
        ("law", MIX, [0.7, 0.18, 0.12]),
        ("code", MIX, [0.1875, 0.1125, 0.7]),
        (["law", "code"], MIX, [0.5, 0.3, 0.2]),
        (["law", "medicine", "code"], MIX, [0.5, 0.3, 0.2]),
        # A target of no rows at all still gets its part.
        ("law", np.array([0.0, 1.0, 1.0]), [0.7, 0.15, 0.15]),
    ],
)
def test_the_targets_begin_with_their_part_and_the_others_share_the_rest(
    target: Any, counts: Any, start: list[float]
) -> None:
    strategy = make(constrained(target), counts=counts)
    np.testing.assert_allclose(strategy.initial(), start)
    np.testing.assert_allclose(strategy._stay, start)


def test_another_part_for_the_targets() -> None:
    shares = {"start": 0.4, "least": 0.2, "most": 0.5}
    np.testing.assert_allclose(make(constrained(target_share=shares)).initial(), [0.4, 0.36, 0.24])


@pytest.mark.parametrize(("floor", "of_share", "least"), [(0.05, 0.02, 0.05), (0.0, 0.03, 0.03)])
def test_the_higher_of_two_floors_counts(floor: float, of_share: float, least: float) -> None:
    spec = constrained(floor=floor, cap=0.95, target_share={"floor": of_share})
    assert make(spec)._bounds() == Bounds(least, 0.95, (0,), 0.4, 0.9)


@pytest.mark.parametrize(
    ("target", "counts", "others", "done", "parts"),
    [
        ("law", MIX, 0.7, 0.0, [0, 0.5, 0.4]),  # half, and two fifths by rows
        ("law", MIX, 0.7, 0.5, [0, 0.425, 0.34]),
        ("law", MIX, 0.7, 1.0, [0, 0.35, 0.28]),
        ("law", np.array([0.0, 0.9, 0.1]), 0.5, 1.0, [0, 0.25, 0.05]),
        (["law", "code"], MIX, 0.7, 1.0, [0, 0.7, 0]),
        ("law", MIX, 0.0, 0.25, [0, 0.375, 0.3]),
        ("law", MIX, 0.0, 1.0, [0, 0, 0]),
        (["law", "medicine", "code"], MIX, 0.7, 0.0, [0, 0, 0]),
    ],
)
def test_what_the_others_keep_of_what_the_targets_leave(
    target: Any, counts: Any, others: float, done: float, parts: list[float]
) -> None:
    """At first an equal part or that by rows, when training ends ``others`` of it."""
    strategy = make(constrained(target, target_share={"others": others}), counts=counts)
    assert strategy._done == 0
    strategy._done = done
    assert strategy._parts() == pytest.approx(tuple(parts))


def test_bounds_without_targets() -> None:
    spec = {"name": "mixing_law", "floor": 0.02, "cap": 0.8, "stay": "proportional"}
    assert make(spec)._bounds() == Bounds(0.02, 0.8)
    limited = make({**spec, "floor": 0.25, "explore": 0.0})
    np.testing.assert_allclose(limited._stay, [0.469, 0.281, 0.25], atol=5e-4)
    np.testing.assert_array_equal(limited.initial(), limited._stay)


def test_how_often_rows_would_be_seen_is_kept() -> None:
    strategy = make({"name": "mixing_law"}, passes=[3, 2, 1])
    np.testing.assert_array_equal(strategy._supply.seen, [0, 0, 0])
    np.testing.assert_array_equal(strategy._supply.alone, [3, 2, 1])
    assert make({"name": "mixing_law"})._supply is None


def test_what_is_explored_at_first() -> None:
    """A tenth up or down, by the lowest bit of the domain's number; nothing if it is 0."""
    strategy = make({"name": "mixing_law", "stay": "proportional", "explore": 0.1})
    moved = MIX * np.exp([0.1, -0.1, 0.1])
    np.testing.assert_allclose(strategy.initial(), moved / moved.sum())
    np.testing.assert_allclose(strategy._stay, MIX)


@pytest.mark.parametrize("k", [3, 6, 7, 13])
def test_without_signal_the_shares_are_those_to_stay_at_at_once(k: int) -> None:
    """Whatever the last ones were; a sixth six times is not quite 1, and goes back all the same."""
    equal, ones, none = np.full(k, 1 / k), np.ones(k), np.zeros(k)
    more = {"domains": [f"d{j}" for j in range(k)], "counts": equal, "base_loss": ones}
    strategy = make({"name": "mixing_law"}, **more)
    strategy._memory.first, strategy._memory.updates = [1.0] * k, 2
    weights = strategy.initial()
    assert np.abs(weights - 1 / k).max() > 0.01
    signals = Signals(
        2, 10, weights, ones, since_base_stderr=np.full(k, 0.5), learning_left=WHOLE / 2
    )
    new, said, _ = strategy._next(RoundMetrics(signals, weights, ones, none, none))
    np.testing.assert_allclose(new, equal, rtol=0, atol=1e-12)
    assert "no shares are clearly better" in said


@pytest.mark.parametrize(("updates", "explores"), [(0, True), (1, True), (2, False)])
def test_two_rounds_explore_and_no_more(updates: int, explores: bool) -> None:
    """Losses that stay say nothing: but for what is explored, the shares are those to stay at.

    Of five domains, since a third round would explore by the third bit of their numbers."""
    equal, ones, none = np.full(5, 0.2), np.ones(5), np.zeros(5)
    more = {"domains": [*"abcde"], "counts": equal, "base_loss": ones}
    strategy = make({"name": "mixing_law", "explore": 0.1}, **more)
    strategy._memory.first, strategy._memory.updates = [1.0] * 5, updates
    signals = Signals(
        1, 10, equal, ones, since_base_stderr=np.full(5, 0.01), learning_left=WHOLE / 2
    )
    weights, _, _ = strategy._next(RoundMetrics(signals, equal, ones, none, none))
    expected = strategy._explored(equal, updates) if explores else equal
    np.testing.assert_allclose(weights, expected)
    assert np.allclose(strategy._explored(equal, updates), equal) is False


@pytest.mark.parametrize(
    ("left", "whole", "factor"),
    [(75.0, 100.0, 4.0), (0.5, 100.0, 1 / 0.995), (None, 100.0, 1.0), (50.0, None, 1.0),
     (0.0, 100.0, 1.0), (100.0, 100.0, 1.0), (120.0, 100.0, 1.0)],
)  # fmt: skip
def test_errors_grow_to_the_end(left: float | None, whole: float | None, factor: float) -> None:
    strategy = make({"name": "mixing_law"}, learning=whole)
    error = [0.01, 0.02, 0.03]
    signals = told(BASE, error, left).signals
    np.testing.assert_allclose(strategy._at_the_end(signals), np.array(error) * factor)


@pytest.mark.parametrize(
    ("left", "whole", "done"),
    [(75.0, 100.0, 0.25), (10.0, 40.0, 0.75), (None, 100.0, 1.0), (50.0, None, 1.0)],
)
def test_the_part_that_is_done(left: float | None, whole: float | None, done: float) -> None:
    strategy = make(constrained(["law", "code"]), learning=whole)
    assert strategy._done == 0
    weights, reason, stop = strategy._next(told(BASE, None, left))
    assert strategy._done == done
    assert (reason, stop) == (NO_STDERR, None)
    np.testing.assert_array_equal(weights, strategy._stay)
    assert strategy._held == pytest.approx(0.7) and strategy._most == 0.9


def test_an_outlook_has_what_the_strategy_was_given() -> None:
    spec = {"name": "mixing_law", "stay": "proportional", "law": {"caution": 0.4}}
    strategy = make(spec, passes=[3, 2, 1])
    outlook = strategy._outlook(LEARNS, 80.0)
    assert outlook.law is LEARNS and outlook.learning == 80 and outlook.caution == 0.4
    assert outlook.supply is strategy._supply and outlook.limits is None
    np.testing.assert_allclose(outlook.anchor, MIX)
    value, slope = outlook.objective(np.array([[0.3, 0.6, 0.9], [3.0, 6.0, 9.0]]))
    np.testing.assert_allclose(value, [0.6, 6.0])
    np.testing.assert_allclose(slope, np.full((2, 3), 1 / 3))


def test_limits_are_tighter_by_the_margin_of_what_is_done() -> None:
    """Half is done, so one of two standard errors counts: 4 (1 + 2 * 0.02) - 4 * 0.02 for the
    domain that may rise by two of them, 1.1 - 0.03 for the one that may rise by a tenth."""
    tolerance: Any = {"medicine": {"stderrs": 2}, "code": 0.1}
    objective = ObjectiveParams(tolerance=tolerance)
    strategy = make(constrained(margin=2.0), objective=objective, passes=[3, 2, 1])
    strategy._done, strategy._doubt = 0.5, np.array([0.01, 0.02, 0.03])
    outlook = strategy._outlook(RISES, 80.0)
    np.testing.assert_allclose(outlook.limits, [np.inf, 4.08, 1.07])
    assert outlook.caution_limits == 1.0
    assert outlook.law is RISES and outlook.learning == 80 and outlook.supply is strategy._supply
    value, slope = outlook.objective(np.array([[0.5, 2.0, 4.0], [0.7, 2.0, 4.0]]))
    np.testing.assert_allclose(value, [0.5, 0.7])
    np.testing.assert_allclose(slope, [[1, 0, 0], [1, 0, 0]])


def test_targets_count_by_parts_of_their_base_losses() -> None:
    """(2 / 4 + 0.9 / 1) / 2."""
    outlook = make(constrained(["medicine", "code"]))._outlook(RISES, 80.0)
    value, slope = outlook.objective(np.array([0.5, 2.0, 0.9]))
    assert value == pytest.approx(0.7)
    np.testing.assert_allclose(slope, [0, 0.125, 0.5])
    np.testing.assert_allclose(outlook.limits, [1.0, np.inf, np.inf])


def test_what_is_said_of_shares_that_are_better() -> None:
    """By the law's formula; named is the domain whose share grows most in proportion."""
    best = np.array([0.45, 0.2, 0.35])
    strategy = make({"name": "mixing_law", "stay": "proportional"}, base_loss=np.ones(3))
    ends = [np.mean(FLOOR + (1 - FLOOR) * (1 + 3 * x) ** -0.5) for x in (MIX, best)]
    outlook = strategy._outlook(LEARNS, WHOLE)
    # Little is won of either, but what is said of it is exact.
    stay, value = (100 * end for end in ends)
    if_best = f"forecast {value:.2f} % at the end, {stay - value:.2f} points better with more code"
    plain = f"forecast {ends[1]:.4f} at the end, {ends[0] - ends[1]:.4f} better with more code"
    assert stay - value > 0.01
    assert strategy._reason(outlook, best, best) == plain
    relative = ObjectiveParams(kind="relative")
    parts = make({"name": "mixing_law", "stay": "proportional"}, objective=relative)
    assert parts._reason(parts._outlook(law([0.03] * 3, base=BASE), WHOLE), best, best) == if_best


def test_what_is_said_of_shares_that_are_hardly_better() -> None:
    strategy = make({"name": "mixing_law", "stay": "proportional"}, base_loss=np.ones(3))
    outlook = strategy._outlook(LEARNS, WHOLE)
    end = np.mean(FLOOR + (1 - FLOOR) * (1 + 3 * MIX) ** -0.5)
    nothing = f"forecast {end:.4f} at the end; no shares are clearly better"
    assert strategy._reason(outlook, MIX, MIX) == nothing
    # The third domain's rows are worth 0.12 more: 3e-5 for so many of them, which is said as 0.
    hardly = MIX + np.array([-2.5e-4, 0, 2.5e-4])
    said = strategy._reason(outlook, hardly, hardly)
    assert re.fullmatch(r"forecast 0\.\d{4} at the end, hardly better with more code", said)


@pytest.mark.parametrize(
    ("tolerance", "doubt", "reason"),
    [
        (0.0, 0.0, "the limits can't all be met; {}; code is forecast to end +5.0 %{}"),
        (0.06, 0.0, "{}; code is forecast to end -1.0 %{}"),
        (0.06, 0.03, "the limits can't all be met with their margin; {}; "
         "code is forecast to end -1.0 %{}"),
        ({"medicine": 0.01, "code": 0.06}, 0.0,
         "the limits can't all be met; {}; medicine is forecast to end +1.0 %{}"),
    ],
)  # fmt: skip
def test_what_is_said_of_limits(tolerance: Any, doubt: float, reason: str) -> None:
    """Medicine ends 2 % and code 5 % above its base loss; medicine's is the higher one."""
    strategy = make(constrained(margin=2.0), objective=ObjectiveParams(tolerance=tolerance))
    strategy._done, strategy._doubt = 1.0, np.full(3, doubt)
    outlook = strategy._outlook(RISES, WHOLE)
    said = strategy._reason(outlook, MIX, MIX)
    assert said == reason.format(
        "targets at 0.500 of the shares", " against its tolerance, the tightest"
    )


def test_the_share_that_is_named_is_the_next_rounds() -> None:
    strategy = make(constrained(), objective=ObjectiveParams(tolerance=0.1))
    outlook, new = strategy._outlook(RISES, WHOLE), np.array([0.6, 0.2, 0.2])
    said = strategy._reason(outlook, MIX, new)
    assert said.startswith("targets at 0.600 of the shares, on the way to 0.500; code")


def test_a_tolerance_in_standard_errors_counts_them() -> None:
    """Code ends 5 % above its base's loss; 4 standard errors of 2 % are 8 %."""
    in_errors = ObjectiveParams(tolerance={"stderrs": 4.0})
    strategy = make(constrained(margin=0.0), objective=in_errors)
    strategy._doubt = np.full(3, 0.02)
    said = strategy._reason(strategy._outlook(RISES, WHOLE), MIX, MIX)
    assert said.endswith("code is forecast to end -3.0 % against its tolerance, the tightest")
    assert "can't" not in said


@pytest.mark.parametrize(
    ("target", "loss", "error", "score"),
    [
        ("law", [0.5, 3.9, 0.9], None, 0.5),
        ("law", [0.5, 3.9, 1.001], None, None),
        ("law", [0.5, 4.2, 1.001], [0.01, 0.02, 0.02], None),
        ("law", [0.5, 4.2, 1.001], [0.01, 0.04, 0.04], 0.5),
        ("law", [1.5, 3.9, 0.9], [0.01] * 3, 1.5),
        (["law", "medicine"], [0.5, 3.0, 0.9], None, 0.625),
    ],
)
def test_a_round_is_scored_where_no_other_domain_is_beyond_its_limit_for_certain(
    target: Any, loss: list[float], error: Any, score: float | None
) -> None:
    """5 % above the limit is certain with an error of 0.02: 1.64 of them are 3.5 % of 4.2."""
    found = make(constrained(target))._score(told(loss, error))
    assert found is None if score is None else found == pytest.approx(score)


@pytest.mark.parametrize(("others", "parts"), [(0.0, (0, 0, 0)), (0.7, (0, 0.35, 0.28))])
def test_shares_that_keep_the_limits_are_taken_as_they_are(
    others: float, parts: tuple[float, ...]
) -> None:
    spec = constrained(target_share={"others": others})
    strategy = make(spec, base_loss=np.ones(3))
    strategy._done = 1.0
    outlook = strategy._outlook(KEEPS, WHOLE)
    best = best_shares(outlook, Bounds(0.01, 1.0, (0,), 0.4, 0.9, parts))
    assert outlook.meets_limits(best)
    np.testing.assert_array_equal(strategy._best(outlook), best)
    assert strategy._most == 0.9


def test_others_are_alike_only_where_that_keeps_the_limits() -> None:
    """Medicine needs all that is left: the part that code would get is not kept for it."""
    strategy = make(constrained(), base_loss=np.ones(3))
    needs = law([0.06, 0.02, 0.04], nu=[1e-4, 2.0, 1e-4], base=np.ones(3))
    outlook = strategy._outlook(needs, WHOLE)
    alike = replace(strategy._bounds(), parts=strategy._parts())
    assert not outlook.meets_limits(best_shares(outlook, alike))
    found = strategy._best(outlook)
    assert found[2] < 0.28 * (1 - found[0])
    assert outlook.meets_limits(found)


@pytest.mark.parametrize(("base", "again"), [(26.0, True), (1000.0, False)])
def test_limits_that_the_search_missed_are_looked_for_from_where_they_are_met(
    base: float, again: bool
) -> None:
    """A target whose loss is so many times the others': a step too little is paid for theirs.

    From the shares that meet them the search ends within the limits, or these shares are taken."""
    first = np.array([base, 1.0, 1.0])
    strategy = make(constrained(), base_loss=first)
    known = law([0.06, 0.08, 0.04], nu=[1e-4, 0.01, 0.02], base=first)
    outlook, bounds = strategy._outlook(known, WHOLE), Bounds(0.01, 1.0, (0,), 0.4, 0.9)
    assert not outlook.meets_limits(best_shares(outlook, bounds))
    safe = protective_shares(outlook, bounds)
    found = best_shares(outlook, bounds, safe)
    assert outlook.meets_limits(safe) and outlook.meets_limits(found) is again
    strategy._held = 0.5
    np.testing.assert_array_equal(strategy._best(outlook), found if again else safe)
    assert strategy._most == 0.9


@pytest.mark.parametrize(("held", "most"), [(0.2, 0.4), (0.6, 0.6), (0.95, 0.9)])
def test_the_targets_get_no_more_than_they_had_where_limits_cant_be_met(
    held: float, most: float
) -> None:
    strategy = make(constrained())
    strategy._held = held
    outlook = strategy._outlook(RISES, WHOLE)
    best = strategy._best(outlook)
    assert strategy._most == most
    expected = protective_shares(outlook, Bounds(0.01, 1.0, (0,), 0.4, most))
    np.testing.assert_array_equal(best, expected)
    assert best[0] <= most + 1e-9


def test_where_all_are_targets_no_limit_is_looked_for() -> None:
    strategy = make(constrained(list(NAMES)), base_loss=np.ones(3))
    best = strategy._best(strategy._outlook(law([0.1, 0.03, 1e-5]), WHOLE))
    assert best[2] < 0.05 and strategy._most == 0.9
    said = strategy._reason(strategy._outlook(RISES, WHOLE), MIX, MIX)
    assert said == "targets at 1.000 of the shares"


def test_the_whole_is_what_is_done_and_what_is_left_where_nobody_says_it() -> None:
    """25 of 100: as where the training's learning amount is known; a half is left to steer too."""
    loss, error = BASE * np.array([0.7, 0.99, 0.99]), np.full(3, 0.01)

    def decided(done: float, left: float, **more: Any) -> Any:
        signals = Signals(
            1, 10, MIX, loss, since_base_stderr=error, learning=done, learning_left=left
        )
        return make({"name": "mixing_law"}, **more).update(signals)

    one, other = decided(25.0, 75.0, learning=None), decided(25.0, 75.0)
    np.testing.assert_array_equal(one.weights, other.weights)
    assert one.reason == other.reason
    assert decided(0.5, 0.5, learning=None).reason.startswith("forecast")
    # What the context says counts where the two differ.
    less = decided(25.0, 75.0, learning=30.0)
    assert less.reason != other.reason or not np.array_equal(less.weights, other.weights)


def test_the_law_is_fitted_to_the_runs_before_and_to_this_one() -> None:
    """With the misfit that was given, for the training's whole learning amount."""
    runs = [
        Trace.begin(BASE).then(np.array(mix), 20.0, 0.0, None, BASE * np.array(fall), np.zeros(3))
        for mix, fall in (([0.8, 0.1, 0.1], [0.7, 0.95, 0.9]), ([0.2, 0.2, 0.6], [0.9, 0.9, 0.6]))
    ]
    strategy = make({"name": "mixing_law", "law": {"misfit": 0.1}}, base_loss=None)
    strategy.context = Context(domains=NAMES, counts=MIX, traces=(runs[0],))
    found = strategy._fitted(runs[1], 60.0)
    np.testing.assert_array_equal(found.base, BASE)
    np.testing.assert_array_equal(found.numbers, fit(runs, BASE, 0.1, 60.0).numbers)
    assert not np.array_equal(found.numbers, fit(runs, BASE, 0.3, 60.0).numbers)
    assert not np.array_equal(found.numbers, fit(runs[1:], BASE, 0.1, 60.0).numbers)


def test_a_part_of_the_way_from_shares_to_others() -> None:
    """A quarter of it in logarithms: 0.16^0.75 0.81^0.25 and so on, and their sum is 1 again."""
    moved = _part_way(np.array([0.16, 0.84]), np.array([0.81, 0.19]), 0.25)
    by_hand = np.array([0.16**0.75 * 0.81**0.25, 0.84**0.75 * 0.19**0.25])
    np.testing.assert_allclose(moved, by_hand / by_hand.sum())
    # A share of 0 counts as 1e-9, in the old shares and in the new ones.
    for old, new in (([1.0, 0.0], [0.5, 0.5]), ([0.5, 0.5], [1.0, 0.0])):
        ratio = np.divide(*_part_way(np.array(old), np.array(new), 0.5)[::-1])
        assert ratio == pytest.approx(1e-9**0.5)


def test_runs_before_decide_the_first_shares() -> None:
    """Those that are best by the law of these runs, for the whole training; nothing is explored."""
    base, mix = np.ones(3), np.array([0.6, 0.2, 0.2])
    trace = Trace.begin(base).then(
        mix, 20.0, 0.0, None, np.array([0.4, 0.95, 0.99]), np.full(3, 0.001)
    )
    spec = {"name": "mixing_law", "law": {"caution": 0.1, "misfit": 0.1}}
    strategy = make(spec, base_loss=base, traces=(trace,))
    known = fit([trace, Trace.begin(base)], base, 0.1, WHOLE)
    best = best_shares(strategy._outlook(known, WHOLE), Bounds(0.01, 1.0))
    assert np.abs(best - 1 / 3).max() > 0.01
    np.testing.assert_array_equal(strategy.initial(), best)
    for missing in ({"learning": None}, {"base_loss": None}):
        plain = make(spec, **{"base_loss": base, "traces": (trace,), **missing})
        np.testing.assert_allclose(plain.initial(), 1 / 3)


# Only the first domain's rows teach anything: by this law it would get all of them.
STEEP = law([0.6, 1e-6, 1e-6])


@pytest.mark.parametrize(
    ("reach", "floor", "cap", "shares"),
    [
        (2.0, 0.01, 1.0, [2 / 3, 1 / 6, 1 / 6]),
        (1.5, 0.01, 1.0, [0.5, None, None]),
        (1.0, 0.01, 1.0, [1 / 3, 1 / 3, 1 / 3]),
        (10.0, 0.2, 1.0, [0.6, 0.2, 0.2]),
        (10.0, 0.01, 0.4, [0.4, None, None]),
    ],
)
def test_without_runs_before_shares_stay_within_reach(
    reach: float, floor: float, cap: float, shares: list[float | None]
) -> None:
    """Of those to stay at, and within floor and cap."""
    spec = {"name": "mixing_law", "law": {"caution": 0.0}, "reach": reach}
    strategy = make({**spec, "floor": floor, "cap": cap})
    best = strategy._best(strategy._outlook(STEEP, WHOLE))
    for found, wanted in zip(best, shares, strict=True):
        assert wanted is None or found == pytest.approx(wanted, abs=2e-3)
    assert best.sum() == pytest.approx(1)
    assert (best >= max(floor, 1 / 3 / reach) - 1e-9).all()
    assert (best <= min(cap, reach / 3) + 1e-9).all()


def test_with_runs_before_no_reach_bounds_the_shares() -> None:
    trace = Trace.begin(np.ones(3)).then(MIX, 20.0, 0.0, None, np.full(3, 0.9), np.full(3, 0.01))
    spec = {"name": "mixing_law", "law": {"caution": 0.0}, "reach": 1.0}
    strategy = make(spec, base_loss=np.ones(3), traces=(trace,))
    best = strategy._best(strategy._outlook(STEEP, WHOLE))
    np.testing.assert_array_equal(best, best_shares(strategy._outlook(STEEP, WHOLE), Bounds(0.01)))
    assert best[0] > 0.7


def test_shares_to_stay_at_that_differ_are_reached_from_each_on_its_own() -> None:
    spec = {"name": "mixing_law", "stay": "proportional", "law": {"caution": 0.0}}
    strategy = make(spec)
    best = strategy._best(strategy._outlook(STEEP, WHOLE))
    np.testing.assert_allclose(best, [0.5 + 0.5 / 3, 0.2, 0.4 / 3], atol=2e-3)


def test_of_two_domains_each_is_raised_once() -> None:
    """Their numbers, 0 and 1, have no second bit that differs."""
    equal = np.full(2, 0.5)
    strategy = make({"name": "mixing_law"}, domains=("law", "code"), counts=equal, base_loss=equal)
    first, second = (strategy._explored(equal, number) for number in (0, 1))
    assert first[0] > 0.55 and second[1] > 0.55
    np.testing.assert_allclose(first, second[::-1])
