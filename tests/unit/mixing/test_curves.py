"""References' curves: what they reached, when to measure, and the law they give."""

from typing import Any

import numpy as np
import pytest

from tests.unit.mixing.test_law import law
from versatune.errors import VersatuneError
from versatune.mixing.curves import (
    Point,
    curve_exponent,
    law_facts,
    law_of,
    measured_at,
    reached,
    slope_of,
    still_falling,
)
from versatune.mixing.law import Law, advance

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
    np.testing.assert_allclose(found.at, 1.0)


def test_a_part_of_the_reference_is_the_floor() -> None:
    made = curves(TRUTH, floor=0.9)
    references = {name: points[-1].losses[name] for name, points in made.items()}
    found = law_of(DOMAINS, made, references, irreducible=0.5)
    np.testing.assert_allclose(found.floor, [0.5 * references[name] for name in DOMAINS])


@pytest.mark.parametrize("exponent", [0.3, 0.5, 1.5])
def test_an_exponent_by_its_curve(exponent: float) -> None:
    learning = np.linspace(0.05, 1, 20)
    left = (1 + 8 * learning / exponent) ** -exponent
    assert curve_exponent(learning, left) == pytest.approx(exponent, rel=0.12)


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
