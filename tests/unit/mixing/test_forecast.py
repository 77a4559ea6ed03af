"""Forecasts: what a mix is to reach, with intervals that hold it, and what there is to win."""

import json
from typing import Any

import numpy as np
import pytest

from tests.helpers.laws import ends, law
from versatune.mixing.config import ObjectiveParams
from versatune.mixing.forecast import (
    INTERVAL,
    LAWS,
    UNEXPLAINED,
    Noise,
    Route,
    Simulation,
    follow,
    forecast,
    headroom,
    scattered,
    static,
)
from versatune.mixing.law import Law
from versatune.mixing.objective import Objective, make_objective

DOMAINS = ("law", "medicine", "code")
ONES = np.ones(3)
UNIFORM = np.full(3, 1 / 3)
ALIKE = law([2.0, 2.0, 2.0], unsure=0.05)
WIDE = law([8.0, 1.0, 0.05], unsure=0.05)


def objective(**params: object) -> Objective:
    return make_objective(ObjectiveParams.model_validate(params), DOMAINS, ONES)


def test_a_path_in_parts_is_the_whole() -> None:
    whole = follow(WIDE, [(UNIFORM, 1.0)])
    np.testing.assert_allclose(whole[0], ends(WIDE, UNIFORM, 1.0))
    np.testing.assert_allclose(follow(WIDE, [(UNIFORM, 0.25)] * 4), whole)


def test_rows_seen_again_count_in_a_path() -> None:
    fresh, worn = (follow(ALIKE, [(UNIFORM, 1.0)], p)[0] for p in (None, np.full(3, 60.0)))
    assert (worn > 1.02 * fresh).all()


def test_rows_are_worn_over_all_parts_of_a_path() -> None:
    passes = np.array([60.0, 6.0, 0.6])
    whole = follow(ALIKE, [(UNIFORM, 1.0)], passes)
    np.testing.assert_allclose(follow(ALIKE, [(UNIFORM, 0.25)] * 4, passes), whole)
    simulation = Simulation(ALIKE, 1.0, passes)
    for _ in range(2):
        simulation.go(UNIFORM, 0.25)
    np.testing.assert_allclose(simulation.seen, passes / 6)


def test_where_domains_are_alike_there_is_nothing_to_win() -> None:
    room = headroom(ALIKE, 1.0, objective())
    assert abs(room.gain) < 1e-3
    assert "take uniform" in room.advice


def test_where_they_differ_the_room_is_that_of_a_search() -> None:
    room = headroom(WIDE, 1.0, objective())
    tried = np.random.default_rng(0).dirichlet(np.ones(3), 4000)
    least = min(ends(WIDE, x).mean() for x in tried)
    uniform = ends(WIDE, UNIFORM).mean()
    assert room.gain == pytest.approx(1 - least / uniform, abs=2e-3)
    assert room.low <= room.gain <= room.high and room.low > 0.01
    assert "take mixing_law" in room.advice and room.unit == "%"


def test_the_room_of_the_worst_gap_is_a_difference() -> None:
    """Equal shares end at their references: a gap near 0, which nothing is divided by. The part by
    which the largest gap falls is within its own interval and told in points."""
    reference = follow(WIDE.likeliest(), [(UNIFORM, 1.0)])[0]
    worst = make_objective(ObjectiveParams(kind="worst"), DOMAINS, ONES, reference)
    room = headroom(WIDE, 1.0, worst)
    least = worst.value(follow(WIDE.likeliest(), [(room.weights, 1.0)])[0])
    assert room.low <= room.gain <= room.high < 0.5
    assert room.gain == pytest.approx(0.0 - least, abs=0.05)
    assert "points of the largest gap" in room.advice and "%" not in room.advice
    told = forecast(DOMAINS, WIDE, worst, {"uniform": static(UNIFORM, 1.0)}, 1.0)
    assert told["strategies"]["best"]["gain"] == pytest.approx(-least)


def test_slopes_that_are_not_known_leave_the_room_open() -> None:
    unsure = law([2.2, 2.0, 1.0], unsure=2.0)
    room = headroom(unsure, 1.0, objective())
    assert room.low < 0.01 < room.high
    assert "open" in room.advice


def test_the_room_reaches_to_what_the_mix_that_turns_out_best_gains() -> None:
    """Half of the laws say that the first domain is the steep one, half say the third: equal shares
    are the mix to expect most of, and either way another one is better by the same part."""
    steep = law([8.0, 1.0, 0.05])
    numbers = steep.numbers.copy()
    numbers[1::2] = numbers[1::2, ::-1]
    either = Law(numbers[1:], steep.base, steep.least)
    one, both = (headroom(x, 1.0, objective()) for x in (steep, either))
    np.testing.assert_allclose(both.weights[0], both.weights[2], atol=0.02)
    assert both.gain < 0.5 * one.gain and both.high == pytest.approx(one.high, abs=1e-3)


def test_nine_of_ten_intervals_hold_what_comes() -> None:
    """True laws drawn as the one that was measured says, and what no law explains."""
    rng, path = np.random.default_rng(7), [(np.array([0.5, 0.3, 0.2]), 1.0)]
    known = law([3.0, 2.0, 1.0], nu=0.2, unsure=0.4)
    low, high = np.quantile(scattered(follow(known, path), ONES), (0.05, 0.95), axis=0)
    others = law([3.0, 2.0, 1.0], nu=0.2)
    others.numbers[1:, :, :2] += 0.4 * rng.standard_normal((96, 3, 2))
    ends = follow(others, path)[1:]
    ends = ends * np.exp(UNEXPLAINED * rng.standard_normal(ends.shape))
    inside = ((ends >= low) & (ends <= high)).mean()
    assert 0.83 <= inside <= 0.97


def test_the_forecast_is_small_json_with_each_path_and_the_best() -> None:
    turned = np.array([0.1, 0.6, 0.3])
    routes = {
        "uniform": static(UNIFORM, 1.0),
        "steered": Route([(UNIFORM, 0.5), (turned, 0.5)], (UNIFORM + turned) / 2),
    }
    found = json.loads(json.dumps(forecast(DOMAINS, WIDE, objective(), routes, 1.0)))
    assert list(found["strategies"]) == ["uniform", "steered", "best"]
    steered = found["strategies"]["steered"]
    assert steered["domains"]["medicine"]["weight"] == pytest.approx((1 / 3 + 0.6) / 2)
    for entry in found["strategies"].values():
        assert entry["objective_low"] <= entry["objective"] <= entry["objective_high"]
        for domain in entry["domains"].values():
            assert domain["low"] <= domain["loss"] <= domain["high"]
    best, uniform = (found["strategies"][n]["objective"] for n in ("best", "uniform"))
    assert 1 - best / uniform == pytest.approx(found["headroom"]["gain"], rel=0.05)
    assert found["strategies"]["uniform"]["above_tolerance"] == []


def test_a_path_that_ends_early_has_seen_its_part_of_the_passes() -> None:
    """Half of a training of eight passes at a share of 1 is four, however early it ends."""
    mix, passes = np.array([0.6, 0.2, 0.2]), np.full(3, 8.0)
    routes = {"whole": static(mix, 1.0), "half": static(mix, 0.5)}
    found = forecast(DOMAINS, ALIKE, objective(), routes, 1.0, passes)
    half = found["strategies"]["half"]["domains"]
    expected = follow(ALIKE.likeliest(), routes["half"].path, passes / 2)[0]
    np.testing.assert_allclose([half[name]["loss"] for name in DOMAINS], expected)
    assert (expected < follow(ALIKE.likeliest(), routes["half"].path, passes)[0]).all()


def test_a_path_that_ends_early_is_not_annealed() -> None:
    """The rate there adds exp(tau eta); of the whole path nothing is left of it."""
    hot = law([1.0, 1.0, 1.0], tau=0.1)
    whole_way = static(UNIFORM, 1.0)
    routes = {"whole": whole_way, "early": whole_way._replace(rate=0.5)}
    found = forecast(DOMAINS, hot, objective(), routes, 1.0)
    whole, early = (found["strategies"][name]["domains"]["law"] for name in routes)
    for key in ("loss", "low", "high"):
        assert early[key] == pytest.approx(whole[key] * np.exp(0.05))


def test_a_tolerance_in_standard_errors_is_in_those_of_the_change() -> None:
    """Medicine and code end above the base, by r, with a standard error of n ln(1 + r), or what the
    runs before had of a small change. Two of these are more than r for medicine's n and less for
    code's, a third."""
    forgets = law([2.0, 0.0, 0.0], nu=[0.0, 2.0, 2.0])
    routes = {"steered": static(np.array([0.9, 0.05, 0.05]), 1.0)}
    loss = follow(forgets.likeliest(), routes["steered"].path)[0]
    assert (loss[1:] > 1.01).all()

    def over(tolerance: Any, noise: Noise | None) -> list[str]:
        aim = make_objective(ObjectiveParams(tolerance=tolerance), DOMAINS, ONES)
        found = forecast(DOMAINS, forgets, aim, routes, 1.0, noise=noise)
        return list(found["strategies"]["steered"]["above_tolerance"])

    two: Any = {"stderrs": 2.0}
    noise = Noise(np.array([0.5, 0.55 * (loss[1] - 1) / np.log(loss[1]), 1 / 3]), np.zeros(3))
    assert over(0.0, None) == over(two, None) == ["medicine", "code"]
    assert over(two, noise) == ["code"]
    assert over(two, noise._replace(least=np.array([0.0, 0.0, 0.51 * (loss[2] - 1)]))) == []
    assert over(0.0, noise) == ["medicine", "code"]
    assert over(float(loss[1]) - 0.999, None) == []


def test_the_forecast_is_of_rows_that_are_seen_again() -> None:
    """Every number of it: the paths' ends and intervals, the best mix and what it gains."""
    passes, path = np.array([200.0, 4.0, 4.0]), [(np.array([0.6, 0.2, 0.2]), 1.0)]
    found = forecast(DOMAINS, ALIKE, objective(), {"given": Route(path, path[0][0])}, 1.0, passes)
    entry, best = (found["strategies"][name] for name in ("given", "best"))
    each = [entry["domains"][name] for name in DOMAINS]
    likeliest = follow(ALIKE.likeliest(), path, passes)[0]
    drawn = scattered(follow(ALIKE, path, passes), ONES)
    np.testing.assert_allclose([d["loss"] for d in each], likeliest)
    ends = np.quantile(drawn, INTERVAL, axis=0)
    np.testing.assert_allclose([[d[end] for d in each] for end in ("low", "high")], ends)
    even = [(UNIFORM, 1.0)]
    equal = follow(ALIKE.likeliest(), even, passes)[0].mean()
    assert entry["gain"] == pytest.approx(1 - likeliest.mean() / equal)
    gains = 1 - drawn.mean(1) / scattered(follow(ALIKE, even, passes), ONES).mean(1)
    low, high = np.quantile(gains, INTERVAL)
    assert (entry["gain_low"], entry["gain_high"]) == pytest.approx((low, high))
    # Rows of the first domain wear off, so the best mix has fewer of them.
    shares = np.array([best["domains"][name]["weight"] for name in DOMAINS])
    assert shares[0] < 0.25
    room = headroom(ALIKE, 1.0, objective(), passes)
    mixed, plain = (
        scattered(follow(ALIKE, [(x, 1.0)], passes), ONES).mean(1) for x in (room.weights, UNIFORM)
    )
    gains = 1 - mixed / plain
    assert room.gain == pytest.approx(gains.mean())
    assert room.low == pytest.approx(np.quantile(gains, INTERVAL[0]))
    # The upper end is of each law's own best mix, found here by trying.
    tried = [UNIFORM, *np.random.default_rng(0).dirichlet(np.full(3, 3.0), 300)]
    ends = np.array([follow(ALIKE, [(x, 1.0)], passes)[:LAWS].mean(1) for x in tried])
    own = (1 - ends / ends[0]).max(0)
    assert room.high == pytest.approx(np.quantile(own, INTERVAL[1]), abs=5e-4)


def test_no_end_is_beyond_what_a_model_that_forgets_all_has() -> None:
    """Drawn laws say 1,000 times the loss; no training does."""
    loss = np.array([2.0, 3.0, 4.0])
    unsure = law([0.1, 0.1, 0.1], nu=5.0, b=3.0, base=loss, unsure=4.0)
    ends = scattered(follow(unsure, [(np.array([0.8, 0.1, 0.1]), 5.0)]), loss)
    assert (ends <= 3 * loss + 1e-12).all() and (ends >= 0.02 * loss - 1e-12).all()
    assert np.isclose(ends, 3 * loss).any()
