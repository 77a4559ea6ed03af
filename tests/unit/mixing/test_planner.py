"""The round planner: shares at every packed row, passes, packing, caps, refusals."""

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from versatune.errors import VersatuneError
from versatune.mixing.config import Unit
from versatune.mixing.draws import DrawState, Passes, Window
from versatune.mixing.plan_config import PlanParams
from versatune.mixing.planner import Planner, RoundPlan, realised_shares

UNITS: tuple[Unit, ...] = ("rows", "tokens", "supervised_tokens")


def planner(
    sizes: list[int],
    *,
    unit: Unit = "tokens",
    seed: int = 0,
    lengths: np.ndarray | None = None,
    supervised: np.ndarray | None = None,
    **params: Any,
) -> Planner:
    """A planner over rows of 5 to 60 tokens, half of them supervised, packed into 64."""
    starts = np.concatenate([[0], np.cumsum(sizes)])
    rng = np.random.default_rng(seed + 100)
    if lengths is None:
        lengths = rng.integers(5, 61, starts[-1])
    if supervised is None:
        supervised = np.maximum(lengths // 2, 1)
    return Planner(
        tuple(f"d{j}" for j in range(len(sizes))),
        starts,
        lengths.astype(np.int32),
        supervised.astype(np.int32),
        PlanParams(**{"max_length": 64, "lookahead": 16, **params}),
        unit=unit,
        seed=seed,
    )


def domains_of(plan: RoundPlan, made_by: Planner) -> np.ndarray:
    return np.searchsorted(made_by.starts, plan.examples, side="right") - 1


def sizes_of(plan: RoundPlan, made_by: Planner) -> np.ndarray:
    """Each example's size in the planner's unit."""
    if made_by.unit == "rows":
        return np.ones(plan.examples.size)
    column = made_by.lengths if made_by.unit == "tokens" else made_by.supervised
    return column[plan.examples].astype(float)


def furthest(plan: RoundPlan, made_by: Planner) -> float:
    """The largest distance of a domain from its share after any example of a segment."""
    one = np.zeros((plan.examples.size + 1, made_by.sizes.size))
    one[np.arange(1, plan.examples.size + 1), domains_of(plan, made_by)] = sizes_of(plan, made_by)
    got = one.cumsum(axis=0)
    worst = 0.0
    ends = [at for at, _ in plan.segments[1:]] + [plan.examples.size]
    for (at, weights), end in zip(plan.segments, ends, strict=True):
        here = got[at : end + 1] - got[at]
        worst = max(worst, float(np.abs(here - weights * here.sum(axis=1, keepdims=True)).max()))
    return worst


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    k = draw(st.integers(1, 7))
    sizes = draw(st.lists(st.integers(1, 60), min_size=k, max_size=k))
    n = sum(sizes)
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    kind = draw(st.sampled_from(["mixed", "full", "tiny", "two sizes"]))
    lengths = {
        "mixed": rng.integers(1, 65, n),
        "full": np.full(n, 64),
        "tiny": rng.integers(1, 9, n),
        "two sizes": rng.choice([3, 62], n),
    }[kind]
    shares = 10.0 ** np.array(draw(st.lists(st.floats(-4, 0), min_size=k, max_size=k)))
    return {
        "sizes": sizes,
        "lengths": lengths,
        "supervised": np.maximum((lengths * rng.random(n)).astype(int), 1),
        "weights": [shares / shares.sum(), np.roll(shares, 1) / shares.sum()],
        "unit": draw(st.sampled_from(UNITS)),
        "lookahead": draw(st.sampled_from([1, 4, 64])),
        "packing": draw(st.booleans()),
    }


@settings(max_examples=150, deadline=None)
@given(cases())
def test_shares_hold_at_every_packed_row(case: dict[str, Any]) -> None:
    """Over changing weights, within one packed row in the unit, and no row too long."""
    weights = case.pop("weights")
    plans = planner(**case)
    state = plans.initial_state()
    drawn: list[list[int]] = [[] for _ in case["sizes"]]
    for w in [*weights, weights[0]]:
        plan = plans.plan_round(w, state, 25)
        assert furthest(plan, plans) <= plan.bound * (1 + 1e-9)
        packed = np.add.reduceat(plans.lengths[plan.examples], plan.offsets[:-1])
        assert packed.max() <= 64 and np.diff(plan.offsets).min() >= 1
        state = plan.state
        for example, j in zip(plan.examples.tolist(), domains_of(plan, plans), strict=True):
            drawn[j].append(example)
    for j, rows in enumerate(drawn):
        everything = set(range(plans.starts[j], plans.starts[j + 1]))
        size = len(everything)
        for begin in range(0, len(rows) - size + 1, size):
            assert set(rows[begin : begin + size]) == everything
        assert len(set(rows[len(rows) // size * size :])) == len(rows) % size
        assert len(rows) == state.drawn(plans.sizes)[j]


def test_bounds_are_one_packed_row_in_the_unit() -> None:
    lengths, supervised = np.full(20, 16), np.full(20, 4)
    common = {"sizes": [10, 10], "lengths": lengths, "supervised": supervised}
    half = np.array([0.5, 0.5])
    assert planner(unit="tokens", **common).bound(half) == 64
    assert planner(unit="rows", **common).bound(half) == 4
    assert planner(unit="supervised_tokens", **common).bound(half) == 16
    assert planner(unit="rows", packing=False, **common).bound(half) == 1


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("packing", [True, False])
def test_passes_alone_times_the_shares_are_the_passes_made(unit: Unit, packing: bool) -> None:
    weights = np.array([0.5, 0.3, 0.2])
    plans = planner([60, 200, 90], unit=unit, packing=packing)
    state = plans.plan_round(weights, plans.initial_state(), 60).state
    wanted = plans.epochs_seen(state)
    # Packed rows are not quite full, and those drawn are not quite like all.
    np.testing.assert_allclose(weights * plans.passes_alone(weights, 60), wanted, rtol=0.2)
    np.testing.assert_allclose(
        plans.passes_alone(weights, 120), 2 * plans.passes_alone(weights, 60)
    )


def test_units_are_told_apart() -> None:
    """Rows of 10 and 40 tokens, 5 and 30 of them supervised: even shares mean three things."""
    lengths = np.repeat([10, 40], 400)
    supervised = np.repeat([5, 30], 400)
    for unit in UNITS:
        plans = planner([400, 400], unit=unit, lengths=lengths, supervised=supervised)
        plan = plans.plan_round([0.5, 0.5], plans.initial_state(), 60)
        np.testing.assert_allclose(plan.realised(unit), [0.5, 0.5], atol=0.02)
        expected = {"rows": 1, "tokens": 4, "supervised_tokens": 6}[unit]
        assert plan.rows[0] / plan.rows[1] == pytest.approx(expected, rel=0.1)


def test_counts_are_what_was_planned() -> None:
    plans = planner([30, 20, 40])
    plan = plans.plan_round([0.5, 0.2, 0.3], plans.initial_state(), 20)
    for j in range(3):
        rows = plan.examples[domains_of(plan, plans) == j]
        assert plan.rows[j] == rows.size
        assert plan.tokens[j] == plans.lengths[rows].sum()
        assert plan.supervised[j] == plans.supervised[rows].sum()
    assert plan.n_tokens == plans.lengths[plan.examples].sum()
    assert plan.efficiency == plan.n_tokens / (20 * 64)
    np.testing.assert_allclose(plans.epochs_seen(plan.state), plan.rows / [30, 20, 40])


def test_a_plan_is_a_pure_function_of_state_weights_and_seed() -> None:
    """Rounds planned in one go, or by a new process from the saved state: the same rows."""
    weights = [[0.6, 0.3, 0.1], [0.2, 0.3, 0.5], [0.1, 0.8, 0.1], [1 / 3, 1 / 3, 1 / 3]]
    plans = planner([30, 9, 40], unit="supervised_tokens")
    state, wanted = plans.initial_state(), []
    for w in weights:
        wanted.append(plans.plan_round(w, state, 15))
        state = wanted[-1].state
    saved = json.loads(json.dumps(wanted[1].state.to_json()))
    fresh = planner([30, 9, 40], unit="supervised_tokens")
    state = DrawState.from_json(saved)
    for w, plan in zip(weights[2:], wanted[2:], strict=True):
        again = fresh.plan_round(w, state, 15)
        np.testing.assert_array_equal(again.examples, plan.examples)
        np.testing.assert_array_equal(again.offsets, plan.offsets)
        assert again.state == plan.state
        state = again.state
    other = planner([30, 9, 40], unit="supervised_tokens", seed=1)
    first = other.plan_round(weights[0], other.initial_state(), 15)
    assert first.examples.tolist() != wanted[0].examples.tolist()


def test_passes_are_reshuffled_and_small_states_stay_small() -> None:
    plans = planner([12], lookahead=1)
    plan = plans.plan_round([1.0], plans.initial_state(), 30)
    first, second = plan.examples[:12].tolist(), plan.examples[12:24].tolist()
    assert sorted(first) == sorted(second) and first != second
    far = planner([5000], lookahead=64).plan_round([1.0], DrawState.start(1), 100).state
    assert len(far.pending[0]) < 64


def test_passes_of_small_domains_are_not_sorted_by_length() -> None:
    """With every row at hand, best fit alone would give each pass the same order."""
    plans = planner([40, 40], lookahead=64)
    plan = plans.plan_round([0.5, 0.5], plans.initial_state(), 300)
    rows = plan.examples[domains_of(plan, plans) == 0]
    passes = rows[: rows.size // 40 * 40].reshape(-1, 40)
    by_length = [np.corrcoef(np.arange(40), plans.lengths[p])[0, 1] for p in passes]
    same_order = [np.corrcoef(np.argsort(a), np.argsort(b))[0, 1] for a, b in pairwise(passes)]
    assert len(passes) > 5
    assert abs(np.mean(by_length)) < 0.3 and abs(np.mean(same_order)) < 0.3


def test_long_run_shares_of_small_domains_are_right() -> None:
    """A share of 1 % in rounds that hold half an example of it."""
    weights = np.array([0.7, 0.29, 0.01])
    for unit in UNITS:
        plans = planner([300, 300, 300], unit=unit)
        state, total = plans.initial_state(), np.zeros(3)
        for _ in range(150):
            plan = plans.plan_round(weights, state, 12)
            state = plan.state
            total += {
                "rows": plan.rows,
                "tokens": plan.tokens,
                "supervised_tokens": plan.supervised,
            }[unit]
        np.testing.assert_allclose(realised_shares(total) / weights, 1, atol=0.08)


def test_looking_ahead_fills_rows() -> None:
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(4.5, 0.8, 3000), 10, 512).astype(int)
    full = {}
    for lookahead in (1, 64):
        plans = planner([1000] * 3, lengths=lengths, max_length=512, lookahead=lookahead)
        plan = plans.plan_round([0.5, 0.3, 0.2], plans.initial_state(), 200)
        full[lookahead] = plan.efficiency
    assert full[64] > 0.97 > full[1]


def test_without_packing_each_row_is_one_example_in_the_order_of_its_pass() -> None:
    plans = planner([50, 50], packing=False)
    plan = plans.plan_round([0.5, 0.5], plans.initial_state(), 40)
    np.testing.assert_array_equal(plan.offsets, np.arange(41))
    passes = Passes(plans.starts, seed=0)
    for domain, start in enumerate((0, 50)):
        mine = plan.examples[domains_of(plan, plans) == domain] - start
        np.testing.assert_array_equal(mine, passes.order(domain, 0)[: mine.size])
    longer = plans.plan_round([0.5, 0.5], plans.initial_state(), 60)
    np.testing.assert_array_equal(longer.examples[:40], plan.examples)
    assert all(pending == () for pending in plan.state.pending)


def test_a_domain_without_a_share_is_not_drawn_nor_touched() -> None:
    plans = planner([30, 0, 30])
    plan = plans.plan_round([0.5, 0.0, 0.5], plans.initial_state(), 20)
    assert plan.rows[1] == 0 and plan.state.cursors[1] == 0


def test_repeating_goes_on_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    plans = planner([6, 100], epoch_cap={"d0": 2.0})
    plan = plans.plan_round([0.5, 0.5], plans.initial_state(), 40)
    assert plans.epochs_seen(plan.state)[0] > 2
    plans.warn_repeats(plans.initial_state(), plan.state)
    assert "d0 has been seen 2.0 times" in caplog.text and "d1" not in caplog.text
    caplog.clear()
    again = plans.plan_round([0.5, 0.5], plan.state, 40)
    plans.warn_repeats(plan.state, again.state)
    assert not caplog.text


def test_redistribution_gives_the_share_to_the_others_in_proportion() -> None:
    plans = planner([6, 100, 100], epoch_cap={"d0": 1.5}, on_exhausted="redistribute")
    plan = plans.plan_round([0.5, 0.3, 0.2], plans.initial_state(), 40)
    assert plan.rows[0] == 9 == plan.state.drawn(plans.sizes)[0]
    assert len(plan.segments) == 2
    np.testing.assert_allclose(plan.segments[1][1], [0, 0.6, 0.4])
    assert furthest(plan, plans) <= plan.bound * (1 + 1e-9)
    later = plans.plan_round([0.5, 0.3, 0.2], plan.state, 20)
    assert later.rows[0] == 0
    np.testing.assert_allclose(later.realised("tokens"), [0, 0.6, 0.4], atol=0.05)


def test_stopping_names_the_domain_and_its_cap() -> None:
    plans = planner([6, 100], epoch_cap=1.0, on_exhausted="stop")
    with pytest.raises(VersatuneError, match=r"d0 has reached epoch_cap 1.0 \(6 rows\)"):
        plans.plan_round([0.5, 0.5], plans.initial_state(), 40)


def test_nothing_left_to_redistribute_to_is_an_error() -> None:
    plans = planner([6, 6], epoch_cap=1.0, on_exhausted="redistribute")
    with pytest.raises(VersatuneError, match="has reached epoch_cap"):
        plans.plan_round([0.5, 0.5], plans.initial_state(), 40)


def test_what_can_not_be_planned_is_refused() -> None:
    plans = planner([10, 0])
    state = plans.initial_state()
    with pytest.raises(VersatuneError, match=r"d1 has a share of 0\.5 but no training tokens"):
        plans.plan_round([0.5, 0.5], state, 5)
    with pytest.raises(ValueError, match="sum to 1"):
        plans.plan_round([0.5, 0.6], state, 5)
    with pytest.raises(ValueError, match="weights"):
        plans.plan_round([1.0], state, 5)
    with pytest.raises(ValueError, match="weights"):
        plans.plan_round([1.0, 0.0], state, 0)
    with pytest.raises(ValueError, match="other data"):
        plans.plan_round([1.0, 0.0], DrawState.start(3), 5)
    with pytest.raises(VersatuneError, match=r"examples are longer than max_length 32"):
        planner([10], max_length=32)
    with pytest.raises(VersatuneError, match="no domain 'law'"):
        planner([10], epoch_cap={"law": 1.0})
    with pytest.raises(ValueError, match="fit together"):
        planner([10], lengths=np.ones(9, int), supervised=np.ones(9, int))
    for cap in (0, -1.0, {"d0": 0.0}):
        with pytest.raises(ValueError, match="above 0"):
            PlanParams(epoch_cap=cap)


def test_a_domain_with_no_supervised_token_can_not_have_a_share_of_them() -> None:
    plans = planner([5, 5], unit="supervised_tokens", supervised=np.repeat([1, 0], 5))
    with pytest.raises(VersatuneError, match="no training supervised tokens"):
        plans.plan_round([0.5, 0.5], plans.initial_state(), 5)


def test_a_thousand_domains() -> None:
    """Many domains with shares far below one packed row keep to them as well."""
    weights = np.random.default_rng(0).dirichlet(np.full(1000, 0.5)) + 1e-7
    plans = planner([40] * 1000)
    plan = plans.plan_round(weights / weights.sum(), plans.initial_state(), 400)
    assert furthest(plan, plans) <= plan.bound
    assert plan.efficiency > 0.97


def test_shares_of_nothing_are_nothing() -> None:
    assert realised_shares([0, 0]).tolist() == [0.0, 0.0]
    assert realised_shares([1, 3]).tolist() == [0.25, 0.75]


def test_drawing_starts_from_nothing() -> None:
    state = DrawState.start(2)
    assert (state.passes, state.cursors, state.pending) == ((0, 0), (0, 0), ((), ()))
    assert state.ahead == (0.0, 0.0)
    assert state.drawn(np.array([5, 7])).tolist() == [0, 0]
    # Two passes of 5, 3 looked at, 1 of them waiting; a pass of 7.
    later = DrawState((2, 1), (3, 0), ((1,), ()), (0.5, -0.5))
    assert later.drawn(np.array([5, 7])).tolist() == [12, 7]
    assert DrawState.from_json(later.to_json()) == later


def window(lengths: list[int], lookahead: int) -> tuple[Window, list[int]]:
    """A window on a domain of rows with these lengths in the order of its first pass."""
    passes = Passes(np.array([0, len(lengths)]), seed=0)
    order = passes.order(0, 0).tolist()
    by_row = np.empty(len(lengths), dtype=np.int32)
    by_row[order] = lengths
    return Window(0, passes, by_row, DrawState.start(1), lookahead, None), order


def test_the_earliest_row_is_taken_where_it_leaves_room_for_another() -> None:
    """Lengths 10, 30, 20 at hand, the median 20: of 30 the first leaves 20, of 29 it does not."""
    drawn, order = window([10, 30, 20, 5], lookahead=3)
    assert drawn.find(30, begins=False) == (order[0], 10)
    assert drawn.find(29, begins=False) == (order[2], 20)
    assert drawn.find(29, begins=True) == (order[0], 10)
    assert drawn.find(9, begins=False) is None
