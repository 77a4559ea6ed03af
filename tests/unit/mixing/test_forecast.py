"""Forecasts: what a mix is to reach, with intervals that hold it, and what there is to win."""

import json

import numpy as np
import pytest

from tests.unit.mixing.test_law import law
from versatune.mixing.config import ObjectiveParams
from versatune.mixing.forecast import Path, drawn, follow, forecast, headroom, simulated
from versatune.mixing.law import Law, advance
from versatune.mixing.objective import Objective, make_objective
from versatune.mixing.shares import Array

DOMAINS = ("law", "medicine", "code")
ONES = np.ones(3)
UNIFORM = np.full(3, 1 / 3)
ALIKE = law(np.diag([2.0, 2.0, 2.0]), stderr=0.1)
WIDE = law(np.diag([8.0, 1.0, 0.05]), stderr=0.1)


def objective(**params: object) -> Objective:
    return make_objective(ObjectiveParams.model_validate(params), DOMAINS, ONES)


def test_a_path_in_parts_is_the_whole_and_a_floor_stays() -> None:
    whole = follow(WIDE, ONES, [(UNIFORM, 1.0)])
    np.testing.assert_allclose(whole, advance(WIDE, ONES, UNIFORM, 1.0)[0])
    np.testing.assert_allclose(follow(WIDE, ONES, [(UNIFORM, 0.25)] * 4), whole)
    floored = Law(**{**vars(WIDE), "floor": np.full(3, 0.5)})
    np.testing.assert_allclose(follow(floored, 1.5 * ONES, [(UNIFORM, 1.0)]), 0.5 + whole)


def test_where_domains_are_alike_there_is_nothing_to_win() -> None:
    room = headroom(ALIKE, ONES, 1.0, objective())
    assert abs(room.gain) < 1e-3
    assert "take uniform" in room.advice


def test_where_they_differ_the_room_is_that_of_a_search() -> None:
    room = headroom(WIDE, ONES, 1.0, objective())
    tried = np.random.default_rng(0).dirichlet(np.ones(3), 4000)
    least = min(follow(WIDE, ONES, [(x, 1.0)]).mean() for x in tried)
    uniform = follow(WIDE, ONES, [(UNIFORM, 1.0)]).mean()
    assert room.gain == pytest.approx(1 - least / uniform, abs=2e-3)
    assert room.low <= room.gain <= room.high and room.low > 0.01
    assert "take mixing_law" in room.advice


def test_slopes_that_are_not_known_leave_the_room_open() -> None:
    unsure = law(np.diag([2.2, 2.0, 1.5]), stderr=2.0)
    room = headroom(unsure, ONES, 1.0, objective())
    assert room.low < 0.01 < room.high
    assert "open" in room.advice


def outcome(truth: Law, path: Path, rng: np.random.Generator) -> Array:
    return follow(truth, ONES, path) * np.exp(0.02 * rng.standard_normal(3))


def test_nine_of_ten_intervals_hold_what_comes() -> None:
    """True laws drawn around the one that was measured, as the standard errors say."""
    rng, path = np.random.default_rng(0), [(np.array([0.5, 0.3, 0.2]), 1.0)]
    known = law([[3.0, -0.2, 0.1], [0.2, 2.0, 0.1], [-0.3, 0.3, 1.0]], stderr=0.4)
    low, high = np.quantile(simulated(known, ONES, path), (0.05, 0.95), axis=0)
    ends = [outcome(drawn(known, rng), path, rng) for _ in range(200)]
    inside = np.mean([(end >= low) & (end <= high) for end in ends])
    assert 0.85 <= inside <= 0.98


def test_the_forecast_is_small_json_with_each_path_and_the_best() -> None:
    paths: dict[str, Path] = {
        "uniform": [(UNIFORM, 1.0)],
        "steered": [(UNIFORM, 0.5), (np.array([0.1, 0.6, 0.3]), 0.5)],
    }
    found = json.loads(json.dumps(forecast(DOMAINS, WIDE, ONES, objective(), paths)))
    assert list(found["strategies"]) == ["uniform", "steered", "best"]
    steered = found["strategies"]["steered"]
    assert steered["domains"]["medicine"]["weight"] == pytest.approx((1 / 3 + 0.6) / 2)
    for entry in found["strategies"].values():
        assert entry["objective_low"] <= entry["objective"] <= entry["objective_high"]
        for domain in entry["domains"].values():
            assert domain["low"] <= domain["loss"] <= domain["high"]
    best, uniform = (found["strategies"][n]["objective"] for n in ("best", "uniform"))
    assert 1 - best / uniform == pytest.approx(found["headroom"]["gain"])
    assert found["strategies"]["uniform"]["within_tolerance"]


def test_no_end_is_beyond_what_a_model_that_forgets_all_has() -> None:
    """A power of the exposure has no upper end: unsure slopes would say 1,000 times the loss."""
    unsure = law(np.diag([1.0, 1.0, 1.0]), stderr=5.0)
    loss = np.array([2.0, 3.0, 4.0])
    ends = simulated(unsure, loss, [(np.array([0.8, 0.1, 0.1]), 5.0)], draws=64)
    assert (ends <= 3 * loss + 1e-12).all() and (ends >= 0.05 * loss - 1e-12).all()
    assert np.isclose(ends, 3 * loss).any()
