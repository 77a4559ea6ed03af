"""``expand`` where no shares keep the others within their limits: the others come first."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import TypeAdapter

from tests.helpers.laws import law
from versatune.mixing.config import ObjectiveParams, TargetShareParams
from versatune.mixing.interface import Context, Decision, Signals
from versatune.mixing.lookahead import Bounds, Outlook, best_shares, protective_shares
from versatune.mixing.repeats import Supply
from versatune.mixing.shares import Array
from versatune.mixing.strategies import StrategyParams, make_strategy

ROUNDS = (8.0, 8.0, 8.0, 6.4, 4.0, 1.6)
"""The learning amounts of rounds of eight steps."""

LOW = {"start": 0.3, "least": 0.05}
SPECS: list[dict[str, Any]] = [
    {"target": ["d1"]},
    {"target": ["d1"], "target_share": LOW},
    {"target": ["d0", "d2"], "target_share": LOW},
]
"""What is expanded in worlds of three domains and more."""


class World:
    """Losses jump up when training begins, and each domain learns from its own rows alone."""

    def __init__(self, k: int, seed: int, *, jump: float, own: float, forget: float) -> None:
        rng = np.random.default_rng(seed)
        self.base = rng.uniform(3.7, 4.2, k)
        self.truth = law(
            own * rng.uniform(0.8, 1.2, k), forget * rng.uniform(0.5, 1.5, k), base=self.base
        )
        self.counts = rng.uniform(0.8, 1.2, k)
        self.counts /= self.counts.sum()
        self.jump, self.rng = jump, rng

    def run(self, spec: dict[str, Any], tolerance: float = 0.0) -> list[tuple[Array, Decision]]:
        """Per round the true losses after it and the decision."""
        k, names = self.base.size, tuple(f"d{j}" for j in range(self.base.size))
        params: Any = TypeAdapter(StrategyParams).validate_python(spec)
        strategy = make_strategy(
            params,
            Context(
                domains=names,
                initial=np.full(k, 1 / k),
                counts=self.counts,
                base_loss=self.base,
                learning=sum(ROUNDS),
                objective=ObjectiveParams(tolerance=tolerance),
            ),
        )
        at, weights, done = self.truth.start(), strategy.initial(), []
        error = np.full(k, 0.01)
        for number, part in enumerate(ROUNDS, start=1):
            at = self.truth.after(at, weights, part)
            y = self.truth.losses(at)[0] * np.exp(self.jump)
            decision = strategy.update(
                Signals(
                    number,
                    8 * number,
                    weights,
                    y * np.exp(0.01 * self.rng.standard_normal(k)),
                    since_base_stderr=error,
                    learning=part,
                    learning_left=sum(ROUNDS[number:]),
                )
            )
            weights = decision.weights
            done.append((y, decision))
        return done

    def violation(self, loss: Array, others: npt.NDArray[np.bool_]) -> float:
        """The root of the sum of squared relative rises of the others."""
        rise = np.maximum(loss / self.base - 1, 0.0)[others]
        return float(np.sqrt(rise @ rise))


def forgetful(k: int, seed: int) -> World:
    return World(k, seed, jump=0.3, own=0.002 * k, forget=0.003)


def constrained(spec: dict[str, Any]) -> dict[str, Any]:
    return {"name": "expand", "rule": "constrained", **spec}


@cache
def protected(k: int, seed: int, number: int) -> list[tuple[Array, Decision]]:
    """A run of ``SPECS[number]`` in a forgetful world; two tests look at each."""
    return forgetful(k, seed).run(constrained(SPECS[number]))


def part(spec: dict[str, Any], k: int) -> npt.NDArray[np.bool_]:
    return np.array([f"d{j}" in spec["target"] for j in range(k)])


@pytest.mark.parametrize("k", [3, 6])
@pytest.mark.parametrize("number", range(len(SPECS)))
def test_the_targets_share_falls_and_never_rises(number: int, k: int) -> None:
    spec = SPECS[number]
    for seed in range(2):
        done = protected(k, seed, number)
        shares = [float(d.weights[part(spec, k)].sum()) for _, d in done]
        least = spec.get("target_share", {"least": TargetShareParams().least})["least"]
        assert (np.diff(shares) <= 1e-9).all()
        assert shares[-1] < least + 0.05
        for _, decision in done[:-1]:
            assert decision.reason.startswith("the limits can't all be met")


@pytest.mark.parametrize("k", [3, 6])
@pytest.mark.parametrize("number", range(1, len(SPECS)))
def test_the_others_lose_no_more_than_on_the_stratified_mix(number: int, k: int) -> None:
    others = ~part(SPECS[number], k)
    for seed in range(2):
        world = forgetful(k, seed)
        runs = protected(k, seed, number), world.run({"name": "proportional"})
        lost = [world.violation(done[-1][0], others) for done in runs]
        assert lost[1] > 0.05
        assert lost[0] <= lost[1] + 0.01


@pytest.mark.parametrize(("k", "spec"), [*((3, s) for s in SPECS[:2]), *((6, s) for s in SPECS)])
def test_no_other_domain_takes_all(k: int, spec: dict[str, Any]) -> None:
    """Losses that jump up and are won back, by own rows alone: none of the others gets twice its
    part of what is theirs while limits can't be met, nor does the target get the most."""
    others, spec = ~part(spec, k), {"target_share": {"least": 0.2}, **spec}
    for seed in range(2):
        world = World(k, seed, jump=0.15, own=0.0073 * k, forget=0.0025)
        for _, decision in world.run(constrained(spec))[:3]:
            assert decision.reason.startswith("the limits can't all be met")
            shares = decision.weights[others] / decision.weights[others].sum()
            assert shares.max() <= 2 / others.sum()
            assert decision.weights[~others].sum() < 0.45


@pytest.mark.parametrize("k", [3, 6])
def test_limits_that_can_be_met_leave_the_target_what_it_had(k: int) -> None:
    spec = SPECS[0]
    world = World(k, 0, jump=0.0, own=0.3, forget=0.001)
    done = world.run(constrained(spec), tolerance=0.02)
    loss, last = done[-1]
    assert last.weights[part(spec, k)].sum() > 0.7
    assert (loss <= 1.02 * world.base).all()
    assert "can't" not in done[-2][1].reason


def weak(k: int, seed: int) -> tuple[Outlook, Bounds]:
    """Limits that can't be met, of domain 1 one that is met with few rows; domain 0 the target."""
    rng = np.random.default_rng(seed)
    known = law(rng.uniform(0.5, 1.5, k), rng.uniform(0.5, 2.0, k), unsure=0.1)
    limits = np.full(k, 0.9 if k > 3 else 0.6)
    limits[:2] = np.inf, 1.2
    target = np.eye(k)[0]
    outlook = Outlook(
        law=known,
        learning=1.0,
        objective=lambda losses: (losses @ target, np.broadcast_to(target, losses.shape)),
        anchor=np.full(k, 1 / k),
        caution=1.0,
        limits=limits,
    )
    return outlook, Bounds(0.01, 0.95, (0,), 0.1, 0.9)


@pytest.mark.parametrize("k", [3, 6])
@pytest.mark.parametrize("seed", range(4))
def test_the_violation_is_the_least_of_many_and_none_gets_more_than_it_needs(
    k: int, seed: int
) -> None:
    outlook, bounds = weak(k, seed)

    def over(shares: Array) -> float:
        assert outlook.limits is not None
        beyond = np.maximum(outlook.forecast(shares)[0] - outlook.limits, 0.0)
        return float(beyond @ beyond)

    found = protective_shares(outlook, bounds)
    tried = np.random.default_rng(seed).dirichlet(np.ones(k), 3000)
    assert over(found) <= min(over(bounds.keep(x)) for x in tried) + 1e-3
    assert found[0] == pytest.approx(0.1, abs=0.01)
    # The second domain is at its limit, or has the least share there is.
    assert found[1] < 0.011 or outlook.forecast(found)[0][1] > 1.2 - 0.02
    assert not outlook.meets_limits(found)


def test_what_others_rows_teach_brings_nobody_to_its_limit() -> None:
    outlook, bounds = weak(4, 0)
    known = law([0.8, 0.5, 1.2, 0.9], nu=1.0, beta=0.5, unsure=0.1)
    taught, alone = (replace(outlook, law=one) for one in (known, known.own_alone()))
    shares = protective_shares(taught, bounds)
    assert (taught.forecast(shares)[0] < alone.forecast(shares)[0] - 0.05).all()
    np.testing.assert_allclose(shares, protective_shares(alone, bounds), atol=1e-6)


def test_a_margin_lowers_the_limits_that_cant_be_met() -> None:
    """By so many standard errors of the forecasts at the anchor."""
    outlook, bounds = weak(5, 1)
    assert outlook.limits is not None
    errors = outlook.errors(bounds.keep(outlook.anchor))
    assert (errors > 0.01).all()
    careful = protective_shares(replace(outlook, caution_limits=2.0), bounds)
    lower = protective_shares(replace(outlook, limits=outlook.limits - 2.0 * errors), bounds)
    np.testing.assert_allclose(careful, lower, atol=1e-9)
    assert np.abs(careful - protective_shares(outlook, bounds)).max() > 0.01


@pytest.mark.parametrize("seed", range(4))
def test_limits_are_searched_with_the_errors_own_derivatives(seed: int) -> None:
    outlook, _ = weak(5, seed)
    supply = Supply(np.full(5, 0.5), np.full(5, 6.0)) if seed % 2 else None
    caution = 1.0 + seed // 2
    outlook = replace(outlook, caution_limits=caution, supply=supply)
    x, h = np.random.default_rng(seed).dirichlet(np.ones(5)), 1e-6
    highest, slopes = outlook.cautious(x)
    np.testing.assert_allclose(highest, outlook.forecast(x)[0] + caution * outlook.errors(x))
    found = outlook.cautious(x + h)[0] - outlook.cautious(x - h)[0]
    np.testing.assert_allclose(slopes, found / (2 * h), atol=1e-5)


@pytest.mark.parametrize("seed", [0, 2, 38])
def test_limits_are_met_by_their_margin_and_the_target_has_the_rest(seed: int) -> None:
    """Errors taken at the shares before, a step behind, missed some of these by a per cent."""
    rng = np.random.default_rng(seed)
    loose = law(rng.uniform(6, 12, 6), rng.uniform(0.3, 1.5, 6), unsure=0.1)
    outlook, bounds = weak(6, 0)
    limits = np.full(6, 1.0)
    limits[0] = np.inf
    anchor = np.array([0.5, 0.1, 0.1, 0.1, 0.1, 0.1])
    known = replace(outlook, law=loose, limits=limits, caution_limits=2.0, anchor=anchor)
    shares = best_shares(known, bounds)
    np.testing.assert_allclose(known.cautious(shares)[0][1:], 1.0, atol=0.005)
    assert known.meets_limits(shares)


def test_doubt_that_grows_where_shares_are_small_moves_none_into_a_corner() -> None:
    """Equal domains but for the target: equal shares, whatever the standard errors."""
    k = 6
    outlook, bounds = weak(k, 0)
    limits = np.full(k, 0.9)
    limits[0] = np.inf
    alike = law([0.8] * k, nu=1.0)
    alike.numbers[1:] += 0.5 * np.random.default_rng(0).standard_normal((96, 1, 8))
    known = replace(outlook, law=alike, limits=limits, caution_limits=2.0)
    np.testing.assert_allclose(protective_shares(known, bounds)[1:], 0.18, atol=5e-3)
