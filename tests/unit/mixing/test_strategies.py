"""Strategies: what they start with, how they answer signals, what they remember and refuse."""

import json
from dataclasses import replace
from itertools import product
from typing import Any, Literal

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from versatune.errors import VersatuneError
from versatune.mixing import formulas
from versatune.mixing.adaptive import _shown
from versatune.mixing.config import (
    CustomParams,
    DoremiParams,
    FosterParams,
    ObjectiveParams,
    UniformParams,
)
from versatune.mixing.strategies import (
    Context,
    Decision,
    Signals,
    Strategy,
    StrategyParams,
    initial_shares,
    make_strategy,
)
from versatune.params import warn_renamed

DOMAINS = ("law", "medicine", "code")
CONTEXT = Context(
    domains=DOMAINS,
    initial=np.array([0.5, 0.3, 0.2]),
    detected=np.array([0.4, 0.4, 0.2]),
    counts=np.array([100.0, 300.0, 600.0]),
    reference_loss=np.array([1.0, 1.5, 0.8]),
    base_loss=np.array([2.0, 2.0, 1.0]),
)
ALL: list[dict[str, Any]] = [
    {"name": "uniform"},
    {"name": "proportional"},
    {"name": "inverse"},
    {"name": "constant"},
    {"name": "custom", "weights": {"legal": 0.2, "medicine": 0.8, "code": 0.0}},
    {"name": "foster"},
    {"name": "foster", "potential_source": "progress", "smoothing": 0.3},
    {"name": "expand", "rule": "paper", "target": "Legal"},
    {"name": "doremi"},
    {"name": "odm"},
]


def make(spec: dict[str, Any], context: Context = CONTEXT) -> Strategy:
    params: Any = TypeAdapter(StrategyParams).validate_python(spec)
    return make_strategy(params, context)


def rounds(strategy: Strategy, measured: list[list[float]], first: int = 1) -> list[Decision]:
    """Updates with these held-out losses, each round's shares those of the decision before."""
    weights, made = strategy.initial(), []
    for number, loss in enumerate(measured, start=first):
        train = np.array([loss[0], np.nan, loss[2]])
        signals = Signals(number, 100 * number, weights, np.array(loss), train)
        made.append(strategy.update(signals))
        weights = made[-1].weights
    return made


LOSSES = [[1.8, 1.9, 0.95], [1.7, 1.95, 0.9], [1.65, 1.8, 0.92], [1.6, 1.85, 0.9]]


@pytest.mark.parametrize("spec", ALL, ids=lambda s: s["name"])
def test_shares_stay_shares_and_every_decision_says_why(spec: dict[str, Any]) -> None:
    strategy = make(spec)
    assert strategy.initial().sum() == pytest.approx(1)
    for decision in rounds(strategy, LOSSES):
        assert decision.weights.sum() == pytest.approx(1) and (decision.weights >= 0).all()
        assert decision.reason and decision.forgetting_degree.shape == (3,)
        assert decision.learnable_potential.shape == (3,)


@pytest.mark.parametrize("spec", ALL, ids=lambda s: s["name"])
def test_a_strategy_resumed_from_json_goes_on_exactly(spec: dict[str, Any]) -> None:
    whole = rounds(make(spec), LOSSES)
    begun = make(spec)
    half = rounds(begun, LOSSES[:2])
    resumed = make(spec)
    resumed.load_state_dict(json.loads(json.dumps(begun.state_dict())))
    weights = half[-1].weights
    for number, loss in enumerate(LOSSES[2:], start=3):
        train = np.array([loss[0], np.nan, loss[2]])
        found = resumed.update(Signals(number, 100 * number, weights, np.array(loss), train))
        weights = found.weights
        wanted = whole[number - 1]
        np.testing.assert_array_equal(found.weights, wanted.weights)
        assert (found.reason, found.stop, found.best) == (wanted.reason, wanted.stop, wanted.best)


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({"name": "uniform"}, [1 / 3, 1 / 3, 1 / 3]),
        ({"name": "proportional"}, [0.1, 0.3, 0.6]),
        ({"name": "proportional", "temperature": 1e9}, [1 / 3, 1 / 3, 1 / 3]),
        ({"name": "inverse"}, [0.3, 0.3, 0.4]),
        ({"name": "constant"}, [0.5, 0.3, 0.2]),
        (ALL[4], [0.2, 0.8, 0.0]),
        ({"name": "foster"}, [0.5, 0.3, 0.2]),
        ({"name": "expand", "rule": "paper", "target": "law", "floor": 0.25}, [0.45, 0.3, 0.25]),
        ({"name": "odm"}, [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_first_shares_by_hand(spec: dict[str, Any], wanted: list[float]) -> None:
    found = make(spec).initial()
    if "floor" in spec:
        wanted = [0.5 * 0.75 / 0.8, 0.3 * 0.75 / 0.8, 0.25]
    np.testing.assert_allclose(found, wanted, atol=1e-8)


@pytest.mark.parametrize("spec", ALL[:5], ids=lambda s: s["name"])
def test_static_shares_never_change(spec: dict[str, Any]) -> None:
    strategy = make(spec)
    for decision in rounds(strategy, LOSSES):
        np.testing.assert_array_equal(decision.weights, strategy.initial())
        assert decision.stop is None


def test_fostering_by_hand_and_its_constant_baseline() -> None:
    decision = rounds(make({"name": "foster", "sigma": 2.0}), [[2.0, 2.0, 1.0]])[0]
    np.testing.assert_allclose(decision.learnable_potential, [0.5, 0.25, 0.2])
    grown = np.array([0.5 * 2, 0.3 * 1.5, 0.2 * 1.4])
    np.testing.assert_allclose(decision.weights, grown / grown.sum())
    assert "law" in decision.reason
    still = rounds(make({"name": "foster", "sigma": 0.0}), LOSSES)[-1]
    np.testing.assert_allclose(still.weights, CONTEXT.initial)  # type: ignore[arg-type]


def reason_of(weights: list[float], gamma: list[float]) -> str:
    """Why `foster` moves these shares where each domain has this gamma (all losses 1)."""
    names = tuple("abc")
    context = Context(
        names, initial=np.array(weights), reference_loss=1 - np.array(gamma), base_loss=np.ones(3)
    )
    return rounds(make({"name": "foster"}, context), [[1.0, 1.0, 1.0]])[0].reason


def test_the_reason_names_the_largest_potential_and_not_the_largest_move() -> None:
    assert reason_of([0.9, 0.09, 0.01], [0.0, 0.04, 0.10]) == (
        "most to learn in c (gamma 0.100), least in a (0.000); "
        "the share of a moves most (0.900 to 0.892)"
    )
    assert "most to learn in b (gamma 0.0003), least in a (6e-06)" in reason_of(
        [0.9, 0.09, 0.01], [6e-6, 3e-4, 2e-4]
    )
    assert reason_of([0.9, 0.09, 0.01], [0.0, 0.10, 0.04]).startswith("most to learn in b (gamma")


def test_a_gamma_has_three_places_or_one_digit_where_these_say_nothing() -> None:
    said = [_shown(gamma) for gamma in (0.0, 5e-4, 4.9e-4, 6e-6, 0.1)]
    assert said == ["0.000", "0.001", "0.0005", "6e-06", "0.100"]


def test_the_reason_says_when_nothing_moves_the_shares() -> None:
    assert reason_of([0.9, 0.09, 0.01], [0.0, 0.0, 0.0]) == (
        "no held-out loss lies above its reference (every gamma is 0); no share moves"
    )
    assert reason_of([0.9, 0.09, 0.01], [0.25, 0.25, 0.25]) == (
        "as much to learn in every domain (gamma 0.250); no share moves"
    )


def test_every_strategy_names_the_share_that_moves_most() -> None:
    """Medicine's loss rose, law has its target or the largest excess: each reason tells both."""
    for spec, lead in (
        ({**EXPAND, "epsilon": 0.0}, "gate closed"),
        ({"name": "doremi", "signal": "validation"}, "largest excess loss 1.100 in medicine"),
        ({"name": "odm", "signal": "validation"}, "largest reward 1.35 in medicine"),
    ):
        strategy = make(spec)
        (decision,) = rounds(strategy, [[1.5, 2.6, 1.0]])
        moved = np.abs(decision.weights - strategy.initial())
        name, before, after = (
            x[int(moved.argmax())] for x in (DOMAINS, strategy.initial(), decision.weights)
        )
        assert decision.reason.startswith(lead), decision.reason
        assert decision.reason.endswith(
            f"; the share of {name} moves most ({before:.3f} to {after:.3f})"
        )
    (still,) = rounds(make({"name": "doremi", "signal": "validation"}), [[0.9, 1.4, 0.7]])
    assert still.reason == "no domain's loss lies above its reference; no share moves"


def test_progress_needs_no_reference_and_follows_what_still_falls() -> None:
    context = Context(domains=DOMAINS, initial=CONTEXT.initial, base_loss=CONTEXT.base_loss)
    decision = rounds(
        make({"name": "foster", "potential_source": "progress"}, context), [[1.0, 2.0, 1.1]]
    )[0]
    np.testing.assert_allclose(decision.learnable_potential, [0.5, 0.0, 0.0])
    assert decision.weights[0] > 0.5
    unknown = Context(domains=DOMAINS, initial=CONTEXT.initial)
    first = rounds(
        make({"name": "foster", "potential_source": "progress"}, unknown), [[1.0, 2.0, 1.1]]
    )[0]
    assert np.isnan(first.learnable_potential).all() and first.weights[0] == 0.5


def test_forgetting_against_the_previous_and_against_the_lowest() -> None:
    """A slow rise looks small from round to round and adds up against the lowest."""
    rise = [[1.0, 1.0, 1.0], [1.0, 1.1, 1.0], [1.0, 1.2, 1.0]]
    found = {}
    for lowest in ("previous", "best"):
        strategy = make({"name": "foster", "forgetting_baseline": lowest})
        found[lowest] = rounds(strategy, rise)[-1].forgetting_degree[1]
    assert found["previous"] == pytest.approx(0.1 / 1.1)
    assert found["best"] == pytest.approx(0.2)


def test_smoothing_averages_with_the_base_loss() -> None:
    decision = rounds(make({"name": "foster", "smoothing": 0.5}), [[1.0, 2.0, 1.0]])[0]
    wanted = formulas.learnable_potential([1.5, 2.0, 1.0], CONTEXT.reference_loss)  # type: ignore[arg-type]
    np.testing.assert_allclose(decision.learnable_potential, wanted)


EXPAND = {
    "name": "expand",
    "rule": "paper",
    "target": "law",
    "sigma": 1.0,
    "epsilon": 0.25,
    "delta": 0.1,
    "target_cap": 0.65,
}


def test_expansion_opens_and_closes_its_gate() -> None:
    calm, lost, capped = rounds(make(EXPAND), [[1.9, 2.0, 1.0], [1.8, 2.6, 1.0], [1.7, 1.9, 0.9]])
    np.testing.assert_allclose(calm.weights, [0.6, 0.24, 0.16])
    assert "open" in calm.reason
    # phi of medicine is 0.3, the mean 0.15 above 0.25 x (0.8 / 1.8): medicine grows by 0.3.
    grown = np.array([0.6, 0.24 * 1.3, 0.16])
    np.testing.assert_allclose(lost.weights, grown / grown.sum())
    assert "closed" in lost.reason
    assert capped.weights[0] == pytest.approx(0.65)


@pytest.mark.parametrize("action", ["none", "stop", "rollback"])
def test_the_guard_ends_expansion_with_its_criterion(action: str) -> None:
    guard = {"action": action, "threshold": 0.05, "patience": 2}
    losses = [[1.9, 1.9, 0.9], [1.7, 1.9, 0.9], [1.6, 2.3, 0.9], [1.5, 2.4, 0.9], [1.4, 2.5, 0.9]]
    made = rounds(make({**EXPAND, "guard": guard}), losses)
    assert [d.best for d in made] == [True, True, False, False, False]
    assert [d.stop for d in made[:3]] == [None] * 3
    assert made[3].stop == (None if action == "none" else action)
    if action == "rollback":
        assert "back to round 2" in made[3].reason and "0.05" in made[3].reason


def test_a_rise_that_passes_does_not_count_towards_the_guard() -> None:
    guard = {"action": "stop", "threshold": 0.05, "patience": 2}
    losses = [[1.9, 1.9, 0.9], [1.7, 2.3, 0.9], [1.6, 1.9, 0.9], [1.5, 2.4, 0.9]]
    assert [d.stop for d in rounds(make({**EXPAND, "guard": guard}), losses)] == [None] * 4


def test_a_rise_that_is_being_made_up_for_does_not_count_towards_the_guard() -> None:
    """The others lie above the threshold all along, less every round but the first and last."""
    guard = {"action": "stop", "threshold": 0.05, "patience": 2}
    losses = [[1.9, m, 1.0] for m in (2.9, 2.7, 2.5, 2.4, 2.4)]
    made = rounds(make({**EXPAND, "guard": guard}), losses)
    assert [d.stop for d in made] == [None] * 4 + ["stop"]
    assert not any(d.best for d in made)


def test_a_rise_that_goes_up_and_down_above_the_threshold_ends_training() -> None:
    """The mean rise is 0.30, 0.29, 0.30 of the lowest losses; a fall within it would begin anew."""
    guard = {"action": "stop", "threshold": 0.05, "patience": 2}
    losses = [[1.9, 2.0 + 4 * rise, 1.0] for rise in (0.30, 0.29, 0.30)]
    made = rounds(make({**EXPAND, "guard": guard}), losses)
    assert [d.stop for d in made] == [None, None, "stop"]
    assert "0.3000 above" in made[2].reason and "did not fall in 2 rounds" in made[2].reason
    within = [[1.9, 2.0 + 4 * rise, 1.0] for rise in (0.30, 0.04, 0.30)]
    assert rounds(make({**EXPAND, "guard": guard}), within)[2].stop is None


def test_a_guard_with_nothing_to_go_back_to_stops() -> None:
    guard = {"action": "rollback", "threshold": 0.01, "patience": 1}
    decision = rounds(make({**EXPAND, "guard": guard}), [[1.9, 2.5, 1.5]])[0]
    assert decision.stop == "stop" and not decision.best


@pytest.mark.parametrize(
    ("kind", "best"), [("mean", [True, False, False]), ("relative", [True, True, False])]
)
def test_the_best_round_has_the_lowest_objective(
    kind: Literal["mean", "relative"], best: list[bool]
) -> None:
    """With ``relative`` half of a small loss weighs as much as half of a large one."""
    context = Context(
        domains=("a", "b"),
        base_loss=np.array([4.0, 0.4]),
        objective=ObjectiveParams(kind=kind),
    )
    strategy = make_strategy(UniformParams(), context)
    made = [
        strategy.update(Signals(i, i, np.array([0.5, 0.5]), np.array(loss)))
        for i, loss in enumerate([[3.0, 0.4], [3.2, 0.3], [3.1, 0.4]])
    ]
    assert [d.best for d in made] == best


def test_doremi_takes_the_held_out_loss_of_a_domain_that_was_not_drawn() -> None:
    decision = rounds(make({"name": "doremi", "share_smoothing": 0.0}), [[1.0, 2.5, 0.8]])[0]
    # Excess 0, 1, 0: the middle one gets e times the share.
    np.testing.assert_allclose(decision.weights, np.array([1, np.e, 1]) / (2 + np.e))


def test_odm_follows_the_step() -> None:
    first, later = (
        make({"name": "odm"}).update(
            Signals(1, step, np.full(3, 1 / 3), np.ones(3), np.array([3.0, 1.0, 1.0]))
        )
        for step in (1, 1000)
    )
    np.testing.assert_allclose(first.weights, np.full(3, 1 / 3))
    assert later.weights[0] > later.weights[1]


def test_smoothing_goes_with_held_out_losses_only() -> None:
    spec = {"name": "doremi", "share_smoothing": 0.0, "signal": "validation", "smoothing": 0.5}
    decision = rounds(make(spec), [[1.0, 2.0, 0.6]])[0]
    # Means with the base model's 2, 2, 1: 1.5, 2, 0.8; above the references 0.5, 0.5, 0.
    grown = np.exp([0.5, 0.5, 0.0])
    np.testing.assert_allclose(decision.weights, grown / grown.sum())
    with pytest.raises(ValidationError, match=r"smoothing 0\.5 averages held-out losses"):
        make({**spec, "signal": "train"})


def test_floor_and_cap_hold_for_every_adaptive_strategy() -> None:
    for spec in ALL[5:]:
        for decision in rounds(make({**spec, "floor": 0.15, "cap": 0.6}), LOSSES * 3):
            assert decision.weights.min() >= 0.15 - 1e-9 and decision.weights.max() <= 0.6 + 1e-9


@pytest.mark.parametrize(
    ("spec", "context", "words"),
    [
        ({"name": "foster"}, Context(DOMAINS, initial=CONTEXT.initial), "reference losses"),
        ({"name": "doremi"}, Context(DOMAINS), "reference losses"),
        (
            {"name": "constant"},
            Context(DOMAINS),
            "'constant' needs an initial mixture or a knowledge distribution, and",
        ),
        ({"name": "inverse"}, Context(DOMAINS), "knowledge distribution"),
        ({"name": "inverse"}, Context(("law",), detected=np.ones(1)), "two domains"),
        ({"name": "proportional"}, Context(DOMAINS), "tokenised store"),
        ({"name": "expand", "rule": "paper", "target": "laws"}, CONTEXT, "Did you mean 'law'"),
        ({"name": "expand", "rule": "paper", "target": "laws"}, CONTEXT, r"strategy\.target"),
        ({"name": "inverse"}, Context(DOMAINS), "'inverse' needs a knowledge distribution"),
        ({"name": "proportional"}, Context(DOMAINS), "'proportional' needs the counts of the"),
        ({"name": "custom", "weights": {"law": 1.0}}, CONTEXT, "medicine, code"),
        ({"name": "custom", "weights": {"art": 1.0}}, CONTEXT, "no domain 'art'"),
        ({"name": "custom", "weights": {"art": 1.0}}, CONTEXT, r"strategy\.weights: "),
        ({"name": "odm", "floor": 0.4}, CONTEXT, "strategy.floor"),
    ],
)
def test_what_is_missing_is_named(spec: dict[str, Any], context: Context, words: str) -> None:
    with pytest.raises(VersatuneError, match=words):
        make(spec, context)


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "fostr"},
        {"name": "foster", "sigma": -1},
        {"name": "foster", "target": "law"},
        {"name": "expand"},
        {"name": "expand", "rule": "paper", "target": "law", "guard": {"patience": 0}},
        {"name": "custom", "weights": {"law": 0.5}},
        {"name": "custom", "weights": {"law": 0.0, "medicine": 0.0, "code": 0.0}},
        {"name": "custom", "weights": {"law": 1.5, "code": -0.5}},
        {"name": "foster", "sigma": float("nan")},
        {"name": "doremi", "smoothing": 0.5},
        {"name": "odm", "smoothing": 0.5, "signal": "train"},
    ],
)
def test_wrong_parameters_are_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make(spec)


@pytest.mark.parametrize(
    "loss", [[np.nan, 1.0, 1.0], [1.0, 1.0], [0.0, 1.0, 1.0], [np.inf, 1.0, 1.0]]
)
def test_broken_losses_never_become_shares(loss: list[float]) -> None:
    for spec, context in product(ALL, (CONTEXT, replace(CONTEXT, base_loss=None))):
        with pytest.raises(ValueError):
            make(spec, context).update(Signals(1, 1, CONTEXT.initial, np.array(loss)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("start", "wanted"),
    [
        ("initial", [0.5, 0.3, 0.2]),
        ("uniform", [1 / 3, 1 / 3, 1 / 3]),
        ("proportional", [0.1, 0.3, 0.6]),
    ],
)
@pytest.mark.parametrize(
    "rule", [{"name": "foster"}, {"name": "expand", "rule": "paper", "target": "law"}]
)
def test_adapting_may_start_without_detection(
    rule: dict[str, Any], start: str, wanted: list[float]
) -> None:
    np.testing.assert_allclose(make({**rule, "start": start}).initial(), wanted)


def test_a_proportional_start_needs_counts() -> None:
    with pytest.raises(VersatuneError, match="counts of the tokenised store"):
        make({"name": "foster", "start": "proportional"}, replace(CONTEXT, counts=None))


def test_initial_shares_keep_a_floor_but_for_custom_ones() -> None:
    context = Context(DOMAINS, detected=np.array([0.7, 0.3, 0.0]))
    params: Any = TypeAdapter(StrategyParams).validate_python({"name": "constant"})
    np.testing.assert_allclose(initial_shares(params, context, 0.1), [0.63, 0.27, 0.1])
    custom = CustomParams(weights={"law": 1.0, "medicine": 0.0, "code": 0.0})
    np.testing.assert_allclose(initial_shares(custom, context, 0.1), [1, 0, 0])
    with pytest.raises(VersatuneError, match="too much for 3 domains"):
        initial_shares(params, context, 0.5)


def test_keys_of_the_version_before_are_taken_with_a_line(caplog: pytest.LogCaptureFixture) -> None:
    warn_renamed.cache_clear()
    given = {"name": "foster", "potential": "progress", "potential_source": "reference"}
    params = FosterParams.model_validate(given | {"against": "previous"})
    assert (params.potential_source, params.forgetting_baseline) == ("progress", "previous")
    assert "strategy.potential was renamed to strategy.potential_source" in caplog.text
    assert "strategy.against was renamed to strategy.forgetting_baseline" in caplog.text
    with pytest.raises(ValueError, match="potential"):
        DoremiParams.model_validate({"name": "doremi", "potential": "progress"})


def test_doremis_eta_is_the_exponents_factor() -> None:
    spec = {"name": "doremi", "share_smoothing": 0.0, "eta": 2.0}
    decision = rounds(make(spec), [[1.0, 2.5, 0.8]])[0]
    # Excess 0, 1, 0: the middle one gets e^2 times the share.
    np.testing.assert_allclose(decision.weights, np.array([1, np.e**2, 1]) / (2 + np.e**2))


def test_odms_decay_and_scale_by_hand() -> None:
    """R = 0.5 R + 0.5 exp(loss), and p = (1 - 3 eps_t) softmax(eps_(t-1) scale R) + eps_t."""
    spec = {"name": "odm", "signal": "validation", "decay": 0.5, "scale": 2.0}
    first, second = rounds(make(spec), [[1.0, 2.0, 1.0], [1.0, 1.0, 2.0]])
    reward = 0.5 * np.exp([1.0, 2.0, 1.0])
    assert first.reason.startswith(f"largest reward {np.exp(2) / 2:.2f} in medicine")
    for decision, step, fresh in ((first, 100, None), (second, 200, [1.0, 1.0, 2.0])):
        if fresh is not None:
            reward = 0.5 * reward + 0.5 * np.exp(fresh)
        before, now = (np.sqrt(np.log(3) / (3 * t)) for t in (step - 1, step))
        chosen = np.exp(before * 2.0 * reward)
        wanted = (1 - 3 * now) * chosen / chosen.sum() + now
        np.testing.assert_allclose(decision.weights, wanted)


@pytest.mark.parametrize(
    ("when_closed", "wanted"),
    [
        ("hold", [0.5, 0.5 * 0.39 / 0.59, 0.5 * 0.2 / 0.59]),
        ("yield", [0.5 / 1.09, 0.39 / 1.09, 0.2 / 1.09]),
    ],
)
def test_a_closed_gate_holds_the_targets_share_or_lets_it_go(
    when_closed: str, wanted: list[float]
) -> None:
    """Medicine's loss rose by 0.3 of the lowest: 0.3 becomes 0.39 beside 0.5 and 0.2."""
    decision = rounds(make({**EXPAND, "when_closed": when_closed}), [[1.9, 2.6, 1.0]])[0]
    assert decision.reason.startswith("gate closed")
    np.testing.assert_allclose(decision.weights, wanted)


def test_smoothing_goes_on_from_the_smoothed_loss() -> None:
    """2 and 1 make 1.5; 1.5 and 1 make 1.25, of which 0.25 lies above the reference."""
    measured = [[1.0, 2.0, 1.0], [1.0, 2.0, 1.0]]
    decision = rounds(make({"name": "foster", "smoothing": 0.5}), measured)[1]
    np.testing.assert_allclose(decision.learnable_potential, [0.25 / 1.25, 0.25, 0.2])
