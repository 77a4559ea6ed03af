"""References' curves: what they reached, when to measure, and the law they give."""

from typing import Any

import numpy as np
import pytest

from tests.unit.mixing.test_law import law
from versatune.errors import VersatuneError
from versatune.mixing.curve_fit import fit_curve
from versatune.mixing.curves import (
    Point,
    fresh_learning,
    law_facts,
    law_of,
    measured_at,
    reached,
    slope_of,
    still_falling,
)
from versatune.mixing.law import Law, advance
from versatune.mixing.repeats import Supply, worth

DOMAINS = ("law", "code")
TRUTH = law([[6.0, -0.5], [0.6, 3.0]], exponent=0.5)


def curves(truth: Law, floor: float = 0.0) -> dict[str, list[Point]]:
    """Runs on each domain alone by ``truth``, all domains measured at steps 0, 1, 4 and 10."""
    result = {}
    for j, run in enumerate(DOMAINS):
        y, points = np.ones(2), []
        for step in range(11):
            if step:
                y, _ = advance(truth, y, np.eye(2)[j], 0.1)
            names = DOMAINS if step in (0, 1, 4, 10) else (run,)
            losses = {name: float(y[DOMAINS.index(name)] + floor) for name in names}
            points.append(Point(step=step, learning=0.1 * step, losses=losses))
        result[run] = points
    return result


def test_a_law_is_found_again_from_its_own_curves() -> None:
    found = law_of(DOMAINS, curves(TRUTH), {"law": 1e-9, "code": 1e-9})
    np.testing.assert_allclose(found.slopes, TRUTH.slopes, rtol=0.05)
    np.testing.assert_allclose(found.exponent, 0.5, rtol=0.1)
    assert found.slows.tolist() == [[1, 0], [1, 1]]
    np.testing.assert_allclose(found.at, 1.0, atol=1e-5)


def test_the_floor_is_that_of_the_curve_or_the_one_to_expect() -> None:
    made = curves(TRUTH, floor=0.4)
    references = {name: points[-1].losses[name] for name, points in made.items()}
    found = law_of(DOMAINS, made, references)
    np.testing.assert_allclose(found.floor, 0.4, atol=0.1)
    # Few points tell little of it: the part to expect counts.
    short = {name: points[:2] + points[4:5] for name, points in made.items()}
    low, high = (law_of(DOMAINS, short, references, irreducible=p).floor for p in (0.3, 0.9))
    assert (high > low + 0.1).all()


@pytest.mark.parametrize("exponent", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("floor", [0.3, 0.6])
def test_a_curve_of_a_known_slope_exponent_and_floor(exponent: float, floor: float) -> None:
    learning = np.linspace(0.05, 1, 20)
    losses = floor + 2 * (1 + 20 * learning / exponent) ** -exponent
    found = fit_curve(learning, losses, 2 + floor, np.zeros(20), 0.7 * losses.min())
    assert found.slope == pytest.approx(20, rel=0.25)
    assert found.exponent == pytest.approx(exponent, rel=0.25)
    np.testing.assert_allclose(found.at(learning, 2 + floor), losses, rtol=0.02)


def test_noise_makes_a_slope_uncertain() -> None:
    learning = np.linspace(0.1, 1, 8)
    losses = 0.5 + (1 + 10 * learning) ** -1.0
    sure, unsure = (fit_curve(learning, losses, 1.5, np.full(8, e), 0.5) for e in (0.0, 0.2))
    assert 0 < sure.slope_error < 0.5 * unsure.slope_error


def repeated(repeats: float, passes: float) -> dict[str, list[Point]]:
    """Runs on each of two domains alone, ``passes`` over its rows in all, by R* ``repeats``."""
    truth = Law(**{**vars(TRUTH), "repeats": repeats})
    result = {}
    for j, run in enumerate(DOMAINS):
        y, points, seen = np.ones(2), [], np.zeros(2)
        for step in range(11):
            if step:
                supply = Supply(seen, np.full(2, passes / 10))
                y = advance(truth, y, np.eye(2)[j], 0.1, supply)[0]
                seen = supply.after(np.eye(2)[j]).seen
            losses = {name: float(y[i]) for i, name in enumerate(DOMAINS)}
            points.append(
                Point(step=step, learning=0.1 * step, losses=losses, passes=float(seen[j]))
            )
        result[run] = points
    return result


def test_how_soon_repeated_rows_teach_less_is_found_again() -> None:
    references = {"law": 0.05, "code": 0.05}
    soon, late = (law_of(DOMAINS, repeated(r, 12.0), references) for r in (2.0, 12.0))
    assert soon.repeats < 4 < 8 < late.repeats
    # The slopes are those of fresh rows in both.
    for found in (soon, late):
        np.testing.assert_allclose(np.diag(found.slopes), np.diag(TRUTH.slopes), rtol=0.4)
    # Runs of one pass say nothing of it: what is usual stands.
    assert law_of(DOMAINS, repeated(2.0, 1.0), references).repeats == 6.0


def test_learning_on_rows_seen_again_counts_by_their_worth() -> None:
    points = [
        Point(step=s, learning=0.5 * s, losses={"law": 1.0}, passes=1.0 * s) for s in range(3)
    ]
    found = fresh_learning(points, "law", 4.0)
    second = float((worth(np.array([2.0]), 4.0) - worth(np.array([1.0]), 4.0))[0])
    np.testing.assert_allclose(found, [0.5, 0.5 + 0.5 * second])


def test_a_slope_by_hand() -> None:
    """Through (1, 2) and (2, 5): (2 + 10) / 5; off by -0.4 and 0.2, so the scatter is 0.2 / 5."""
    slope, error = slope_of(np.array([1.0, 2.0]), np.array([2.0, 5.0]), np.zeros(2))
    assert slope == pytest.approx(2.4)
    assert error == pytest.approx(np.sqrt(0.2 / 5 + (0.05 * 2.4) ** 2))


def test_what_a_run_reached() -> None:
    assert reached(np.array([3.0, 2.0, 1.5])) == (1.5, 2)
    assert reached(np.array([3.0, 4.0, 5.0])) == (3.0, 0)
    # A minimum on the way is smoothed: (2.0 + 2 * 1.6 + 1.8) / 4.
    value, at = reached(np.array([3.0, 2.0, 1.6, 1.8, 2.2]))
    assert value == pytest.approx(1.75) and at == 2


def test_the_smooth_minimum_is_not_the_least_of_noise() -> None:
    rng = np.random.default_rng(0)
    flat = [1 + 0.05 * rng.standard_normal(12) for _ in range(400)]
    inside = [x for x in flat if 0 < np.argmin(x) < x.size - 1]
    least, smooth = np.mean([x.min() for x in inside]), np.mean([reached(x)[0] for x in inside])
    assert least < 0.93 and smooth > least + 0.03


@pytest.mark.parametrize(
    ("losses", "falling"),
    [([2.0, 1.5, 1.2, 1.0], True), ([2.0, 1.2, 1.002, 1.0], False), ([2.0, 1.0, 1.1, 1.2], False)],
)
def test_a_run_that_was_cut_off_is_known(losses: list[float], falling: bool) -> None:
    assert still_falling(np.array(losses), np.array([0.0, 1.0, 2.0, 3.0])) is falling


def test_a_run_that_learnt_little_and_did_not_slow_down_is_still_falling() -> None:
    """Four steps took off 1.1 %, evenly: the reference is far from what the domain gives."""
    learning = np.array([0.0, 1.0, 2.0])
    assert still_falling(np.array([5.467, 5.437, 5.407]), learning)
    # three quarters of it in the first half: it slows down
    assert not still_falling(np.array([5.467, 5.419, 5.407]), learning)
    # even, but so little that it is no learning: a rate of almost 0
    assert not still_falling(np.array([5.467, 5.466, 5.465]), learning)


def test_all_domains_are_measured_at_doublings_that_are_paid_for() -> None:
    assert measured_at(6, 10) == (0, 1, 2, 4, 6)
    assert measured_at(8, 2) == (0, 1, 8)
    assert measured_at(8, 1) == (0, 8)
    assert measured_at(1, 5) == (0, 1)
    assert measured_at(8, 0) == ()


def facts(made: dict[str, list[Point]]) -> dict[str, Any]:
    return {
        "mode": "measure",
        "domains": {
            name: {
                "nats_per_token": points[-1].losses[name],
                "curve": [p.model_dump() for p in points],
            }
            for name, points in made.items()
        },
    }


def test_facts_of_a_law_are_there_when_all_was_measured() -> None:
    found = law_facts(facts(curves(TRUTH)))
    assert found is not None and found["domains"] == list(DOMAINS)
    assert np.array(found["slopes"]).shape == (2, 2)
    made = curves(TRUTH).items()
    own = {name: [p for p in points if len(p.losses) == 1] for name, points in made}
    assert law_facts(facts(own)) is None
    nothing = {"nats_per_token": None, "bits_per_byte": None, "step": None}
    assert law_facts({"domains": dict.fromkeys(DOMAINS, nothing)}) is None


def test_curves_that_lack_something_are_refused() -> None:
    made = curves(TRUTH)
    late = {**made, "law": made["law"][1:]}
    with pytest.raises(VersatuneError, match="no curve of law"):
        law_of(DOMAINS, late, {"law": 0.1, "code": 0.1})
    blind = {**made, "law": [p for p in made["law"] if p.step == 0 or len(p.losses) == 1]}
    with pytest.raises(VersatuneError, match="run of law never measured code"):
        law_of(DOMAINS, blind, {"law": 0.1, "code": 0.1})
