"""The mixing law: by hand, its derivatives, and what a fit finds again."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.laws import ends, law, run
from versatune.mixing.law_fit import fit
from versatune.mixing.repeats import Supply
from versatune.mixing.traces import Trace

HALF = np.array([0.5, 0.5])


def test_by_hand() -> None:
    """Own rows alone: w = 1 + 4 * 2 = 9. The others' rows alone: w = (1 + 1.5 * 2)^-1/2 = 1/2."""
    known = law([4.0, 4.0], nu=1.5)
    np.testing.assert_allclose(ends(known, [1.0, 0.0], 2.0), [9**-0.5, 2**0.5], rtol=1e-3)


def test_a_floor_stays_and_others_teach() -> None:
    """w = 1 + 0.5 * 3 * 2 + 0.25 * 2 = 4.5 of what is above the floor."""
    known = law([3.0, 3.0], beta=0.5, floor=0.4, base=[2.0, 3.0])
    found = ends(known, HALF, 2.0)
    np.testing.assert_allclose(found, np.array([2.0, 3.0]) * (0.4 + 0.6 * 4.5**-0.5), rtol=1e-3)


def test_a_high_learning_rate_raises_losses_for_the_time_being() -> None:
    known = law([1.0, 1.0], tau=0.1)
    at = known.after(known.start(), HALF, 1.0)
    np.testing.assert_allclose(known.losses(at, 1.0), known.losses(at, 0.0) * math.exp(0.1))


def test_a_small_share_keeps_most_of_what_is_known() -> None:
    """Without its rows a known domain fades as F^-1/2; w is linear in its share besides."""
    known = law([0.2] * 2, nu=0.1)
    w = [ends(known, [x, 1 - x], 100.0)[0] ** -2 for x in (0.0, 0.05, 0.1)]
    assert w[0] == pytest.approx(11**-0.5, rel=1e-3)
    assert w[1] - w[0] == pytest.approx(1.0, rel=0.01)
    assert w[2] - w[1] == pytest.approx(1.0, rel=0.01)


def test_what_is_learnt_fades_while_others_are_trained_on() -> None:
    """Own rows first: A = 2, of which exp(-0.5 * 2) is left after two units of the others'. On one
    mix the two come to an equilibrium, x / (phi (1 - x)) = 2."""
    known = law([4.0, 4.0], fade=0.5)
    at = known.after(known.start(), np.array([1.0, 0.0]), 2.0)
    at = known.after(at, np.array([0.0, 1.0]), 2.0)
    assert at.own[0] == pytest.approx([2 * math.exp(-1.0), 2.0], rel=1e-6)
    for many in (60.0, 600.0):
        own = known.after(known.start(), HALF, many).own[0]
        assert own == pytest.approx([2.0, 2.0], rel=1e-3)


@given(st.integers(0, 10_000), st.floats(0.01, 3.0), st.booleans())
def test_derivatives(seed: int, learning: float, scarce: bool) -> None:
    rng = np.random.default_rng(seed)
    known = law(
        rng.uniform(0.1, 5, 3),
        rng.uniform(0, 1, 3),
        beta=0.1,
        floor=0.2,
        fade=float(rng.uniform(0, 2)),
        unsure=0.5,
    )
    supply = Supply(rng.uniform(0, 4, 3), rng.uniform(1, 20, 3)) if scarce else None
    x, h = rng.dirichlet(np.ones(3)), 1e-6
    _, slopes = known.ends(x, learning, supply)
    up, down = (known.ends(x + s, learning, supply)[0] for s in (h, -h))
    np.testing.assert_allclose(slopes, (up - down) / (2 * h), rtol=1e-3, atol=1e-6)


def test_parts_of_a_training_are_the_whole() -> None:
    known = law([2.0, 1.0], nu=0.3, fade=0.8, unsure=0.2)
    at = known.start()
    for _ in range(4):
        at = known.after(at, HALF, 0.25)
    np.testing.assert_allclose(known.losses(at), known.ends(HALF, 1.0)[0])


MIXES = [np.array([0.8, 0.2]), np.array([0.2, 0.8])]
KNOWN = law([0.5, 0.02], nu=[0.0, 0.05], floor=0.3, base=[6.0, 2.0])


def test_a_fit_foretells_a_longer_training_on_another_mix() -> None:
    """From two short runs: one domain is new to the model, the other is known to it."""
    short = [run(KNOWN, [mix] * 4, 6.0, noise=0.005, seed=n) for n, mix in enumerate(MIXES)]
    found = fit(short, KNOWN.base, misfit=0.1, learning=100.0)
    for mix in (HALF, np.array([0.7, 0.3])):
        wanted = ends(KNOWN, mix, 100.0)
        told = ends(found.likeliest(), mix, 100.0)
        np.testing.assert_allclose(told, wanted, rtol=0.12)
        drawn = found.ends(mix, 100.0)[0]
        low, high = np.quantile(drawn, [0.005, 0.995], axis=0)
        assert ((low < wanted) & (wanted < high)).all()


def test_the_more_runs_the_surer() -> None:
    few = [run(KNOWN, [mix] * 3, 6.0, noise=0.01, seed=n) for n, mix in enumerate(MIXES)]
    long = run(KNOWN, [HALF] * 6, 15.0, noise=0.01, seed=9)
    spread = [
        np.log(found.ends(HALF, 90.0)[0]).std(0)
        for found in (fit(few, KNOWN.base, 0.05), fit([*few, long], KNOWN.base, 0.05))
    ]
    assert (spread[1] < 0.75 * spread[0]).all()


def test_domains_that_are_alike_are_told_from_each_other_s_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Six domains of one kind measured with much noise: they are not held for different ones."""
    truth = law([0.1] * 6, base=4.0)
    rng = np.random.default_rng(3)
    noisy = [run(truth, [rng.dirichlet(np.ones(6))], 20.0, noise=0.1, seed=n) for n in range(4)]
    together = np.ptp(fit(noisy, truth.base).numbers[0, :, 0])
    with monkeypatch.context() as patch:
        patch.setattr("versatune.mixing.law_fit.POOLINGS", 1)
        alone = np.ptp(fit(noisy, truth.base).numbers[0, :, 0])
    assert together < 0.6 * alone
    # One that learns ten times as fast is told from them all the same.
    other = law([0.1] * 5 + [1.0], base=4.0)
    seen = [run(other, [rng.dirichlet(np.ones(6))], 20.0, noise=0.02, seed=n) for n in range(4)]
    alpha = fit(seen, other.base).numbers[0, :, 0]
    assert alpha[5] > alpha[:5].max() + 0.7


def test_annealing_is_told_from_learning() -> None:
    """Losses that fall as the rate does: tau, and not what the rows teach."""
    truth = law([0.001, 0.001], tau=0.2, base=[2.0, 3.0])
    rates = [1.0, 0.75, 0.5, 0.25, 0.0]
    seen = [run(truth, [mix] * 5, 10.0, rates=rates) for mix in MIXES]
    found = fit(seen, truth.base, misfit=0.01)
    np.testing.assert_allclose(found.numbers[0, :, 5], 0.2, atol=0.02)
    np.testing.assert_allclose(ends(found.likeliest(), HALF, 50.0), truth.base, rtol=0.03)


def test_worn_rows_are_told_from_a_slow_domain() -> None:
    truth = law([1.0, 1.0], repeats=2.0)
    worn = [run(truth, [mix] * 6, 2.0, passes_alone=1.0, noise=0.003) for mix in MIXES]
    fresh = [run(truth, [mix] * 6, 2.0, passes_alone=0.01, noise=0.003) for mix in MIXES]
    soon, usual = (fit(seen, truth.base, misfit=0.005).numbers[0, :, 6] for seen in (worn, fresh))
    assert (np.exp(soon) < 15).all() and np.exp(usual) == pytest.approx([30.0] * 2, rel=0.2)


def test_learning_that_fades_is_told_from_learning_that_stays() -> None:
    """One domain keeps what it learns, the other loses it: a long training at small shares."""
    mixes = [np.array([0.6, 0.4])] * 3 + [np.array([0.1, 0.9])] * 3 + [np.array([0.9, 0.1])] * 3
    fades = []
    for fade in (0.0, 1.0):
        truth = law([1.0, 1.0], fade=fade)
        seen = [run(truth, mixes[i:] + mixes[:i], 2.0, noise=0.003) for i in (0, 3, 6)]
        found = fit(seen, truth.base, misfit=0.02)
        fades.append(found.numbers[0, :, 7])
        for mix in (HALF, MIXES[1]):
            np.testing.assert_allclose(
                ends(found.likeliest(), mix, 30.0), ends(truth, mix, 30.0), rtol=0.05
            )
    assert np.exp(fades[1]) == pytest.approx([1.0, 1.0], rel=0.3)
    assert (np.exp(fades[0]) < 0.1).all()


def test_without_measurements_the_prior_stands_and_gaps_are_passed_over() -> None:
    nothing = fit([Trace.begin(np.ones(2))], np.ones(2))
    assert np.isfinite(ends(nothing, HALF, 10.0)).all()
    seen = run(KNOWN, [MIXES[0]] * 4, 6.0)
    losses = seen.losses.copy()
    losses[2, 1] = np.nan
    gap = Trace(**{**vars(seen), "losses": losses})
    np.testing.assert_allclose(
        ends(fit([gap], KNOWN.base), HALF), ends(fit([seen], KNOWN.base), HALF), rtol=0.02
    )


def test_a_trace_of_other_rows_tells_the_change_alone() -> None:
    """Losses of a run measured on half of the rows lie 10 % higher throughout."""
    seen = run(KNOWN, [MIXES[0]] * 4, 6.0)
    higher = Trace(**{**vars(seen), "losses": 1.1 * seen.losses})
    np.testing.assert_allclose(
        fit([higher], KNOWN.base).numbers[0], fit([seen], KNOWN.base).numbers[0], atol=1e-4
    )
