"""The formulas, against numbers worked by hand and against what must hold for all numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from versatune.mixing import formulas, rivals
from versatune.mixing.shares import bounded_shares, shares

losses = st.floats(0.01, 20)
K = st.integers(2, 8)


@st.composite
def some_shares(draw: st.DrawFn, k: int | None = None) -> np.ndarray:
    k = k or draw(K)
    parts = np.array(draw(st.lists(st.floats(1e-4, 1), min_size=k, max_size=k)))
    return parts / parts.sum()


@st.composite
def measured(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shares, losses and references of as many domains."""
    weights = draw(some_shares())
    two = st.lists(losses, min_size=weights.size, max_size=weights.size)
    return weights, np.array(draw(two)), np.array(draw(two))


def close(found: np.ndarray, wanted: list[float]) -> None:
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_potential_by_hand() -> None:
    close(formulas.learnable_potential([2.0, 3.0, 1.0], [1.0, 2.4, 1.5]), [0.5, 0.2, 0.0])


def test_foster_by_hand() -> None:
    # 0.5 * 1.25, 0.3 * 1.1, 0.2 * 1.0 = 0.625, 0.33, 0.2; their sum is 1.155.
    found = formulas.foster_update([0.5, 0.3, 0.2], [0.5, 0.2, 0.0], sigma=0.5)
    close(found, [0.625 / 1.155, 0.33 / 1.155, 0.2 / 1.155])


def test_forgetting_by_hand() -> None:
    close(formulas.forgetting_degree([2.2, 0.9, 3.0], [2.0, 1.0, 3.0]), [0.1, 0.0, 0.0])


def test_progress_by_hand() -> None:
    close(formulas.recent_progress([1.8, 1.0, 3.3], [2.0, 1.0, 3.0]), [0.1, 0.0, 0.0])


def test_gate_by_hand() -> None:
    phi, gamma = [0.9, 0.02, 0.04], [0.2, 0.5, 0.5]  # the others' mean is 0.03
    assert formulas.expansion_gate(phi, gamma, target=0, epsilon=0.16)  # limit 0.032
    assert not formulas.expansion_gate(phi, gamma, target=0, epsilon=0.15)  # limit 0.03
    assert not formulas.expansion_gate([0, 0, 0], [0, 1, 1], target=0, epsilon=1.0)


def test_raising_the_target_by_hand() -> None:
    # 0.2 -> 0.3; the others shrink from 0.8 to 0.7, by 7/8.
    close(formulas.raise_target([0.2, 0.4, 0.4], 0, 0.1), [0.3, 0.35, 0.35])
    close(formulas.raise_target([0.2, 0.4, 0.4], 0, 0.1, cap=0.25), [0.25, 0.375, 0.375])
    close(formulas.raise_target([0.6, 0.1, 0.3], 0, 0.1, cap=0.5), [0.6, 0.1, 0.3])
    close(formulas.raise_target([1.0, 0.0], 0, 0.1), [1.0, 0.0])


def test_protecting_the_others_by_hand() -> None:
    weights, phi = [0.5, 0.3, 0.2], [9.0, 0.1, 0.0]
    # The others become 0.33 and 0.2; held, they share 0.5, else all are divided by 1.03.
    close(
        formulas.protect_others(weights, phi, 0, 1.0, hold=True),
        [0.5, 0.5 * 0.33 / 0.53, 0.5 * 0.2 / 0.53],
    )
    close(
        formulas.protect_others(weights, phi, 0, 1.0, hold=False),
        [0.5 / 1.03, 0.33 / 1.03, 0.2 / 1.03],
    )


def test_expand_follows_its_gate() -> None:
    common = {"target": 0, "sigma": 1.0, "epsilon": 0.25, "delta": 0.1, "cap": 0.7}
    weights, gamma = [0.2, 0.4, 0.4], [0.4, 0.1, 0.1]
    close(formulas.expand_update(weights, gamma, [0, 0.05, 0.05], **common), [0.3, 0.35, 0.35])
    closed = formulas.expand_update(weights, gamma, [0, 0.5, 0.1], **common)
    close(closed, [0.2 / 1.24, 0.6 / 1.24, 0.44 / 1.24])


def test_baselines_by_hand() -> None:
    close(formulas.uniform_weights(4), [0.25] * 4)
    close(formulas.inverse_weights([0.5, 0.3, 0.2]), [0.25, 0.35, 0.4])
    close(formulas.temperature_proportional([100, 400, 0]), [0.2, 0.8, 0.0])
    close(formulas.temperature_proportional([100, 400], temperature=2.0), [1 / 3, 2 / 3])


def test_doremi_by_hand() -> None:
    # exp(ln 3) : exp(0) = 3 : 1 on even shares; then 0.9 w + 0.1 / 2.
    found = rivals.doremi_update([0.5, 0.5], [np.log(3), 0.0], eta=1.0, smoothing=0.1)
    close(found, [0.9 * 0.75 + 0.05, 0.9 * 0.25 + 0.05])


def test_odm_by_hand() -> None:
    close(rivals.odm_reward([1.0, 2.0], [np.log(2), np.nan], decay=0.9), [1.1, 2.0])
    assert rivals.odm_exploration(0, 4) == 0.25
    assert rivals.odm_exploration(100, 2) == pytest.approx(np.sqrt(np.log(2) / 200))
    before, now = rivals.odm_exploration(99, 2), rivals.odm_exploration(100, 2)
    first = np.exp(before * 3) / (np.exp(before * 3) + 1)
    close(
        rivals.odm_update([3.0, 0.0], 100),
        [(1 - 2 * now) * first + now, (1 - 2 * now) * (1 - first) + now],
    )


def test_the_paper_s_headline_follows_from_its_table() -> None:
    """The seven relative gains of dynamic over uniform average to the paper's 35.2 %."""
    uniform = np.array([23.88, 29.28, 32.61, 41.50, 43.43, 42.03, 57.56])
    dynamic = np.array([36.26, 45.17, 45.54, 54.30, 57.85, 51.44, 65.70])
    assert np.mean(dynamic / uniform - 1) == pytest.approx(0.352, abs=5e-4)


@given(measured(), st.floats(0.01, 100))
def test_potential_lies_in_0_1_and_has_no_scale(
    case: tuple[np.ndarray, np.ndarray, np.ndarray], scale: float
) -> None:
    _, loss, reference = case
    gamma = formulas.learnable_potential(loss, reference)
    assert ((gamma >= 0) & (gamma < 1)).all()
    np.testing.assert_allclose(
        formulas.learnable_potential(scale * loss, scale * reference), gamma, atol=1e-12
    )


@given(measured(), st.floats(0, 50))
def test_references_that_vanish_make_fostering_the_identity(
    case: tuple[np.ndarray, np.ndarray, np.ndarray], sigma: float
) -> None:
    """The trap of memorised references: gamma is 1 everywhere and nothing moves."""
    weights, loss, _ = case
    gamma = formulas.learnable_potential(loss, np.full(loss.shape, 1e-12))
    np.testing.assert_allclose(formulas.foster_update(weights, gamma, sigma), weights, rtol=1e-6)


@given(measured(), st.floats(0, 50))
def test_fostering_keeps_shares_shares_and_none_reaches_0(
    case: tuple[np.ndarray, np.ndarray, np.ndarray], sigma: float
) -> None:
    weights, loss, reference = case
    gamma = formulas.learnable_potential(loss, reference)
    for _ in range(20):
        new = formulas.foster_update(weights, gamma, sigma)
        assert new.sum() == pytest.approx(1) and (new > 0).all()
        # More potential, more growth.
        order = np.argsort(gamma)
        assert (np.diff((new / weights)[order]) >= -1e-9).all()
        weights = new
    np.testing.assert_allclose(formulas.foster_update(weights, gamma, 0.0), weights)


@given(measured(), st.floats(0, 5), st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_expanding_keeps_shares_shares(
    case: tuple[np.ndarray, np.ndarray, np.ndarray],
    sigma: float,
    epsilon: float,
    delta: float,
    hold: bool,
) -> None:
    weights, loss, reference = case
    gamma = formulas.learnable_potential(loss, reference)
    phi = formulas.forgetting_degree(loss, reference)
    new = formulas.expand_update(
        weights, gamma, phi, 0, sigma=sigma, epsilon=epsilon, delta=delta, cap=0.9, hold=hold
    )
    assert new.sum() == pytest.approx(1) and (new > 0).all()
    is_open = formulas.expansion_gate(phi, gamma, 0, epsilon)
    assert new[0] >= weights[0] - 1e-12 if is_open or hold else new[0] <= weights[0] + 1e-12


@given(some_shares(), st.floats(0, 1), st.floats(0, 1))
def test_bounds_hold_and_free_shares_keep_their_ratios(
    weights: np.ndarray, low: float, high: float
) -> None:
    k = weights.size
    floor, cap = low / k, 1 / k + high * (1 - 1 / k)
    found = bounded_shares(weights, floor, cap)
    assert found.sum() == pytest.approx(1)
    assert (found >= floor - 1e-9).all() and (found <= cap + 1e-9).all()
    free = (found > floor + 1e-7) & (found < cap - 1e-7)
    ratios = found[free] / weights[free]
    assert np.ptp(ratios) <= 1e-6 * (ratios.max() if ratios.size else 1) if ratios.size else True
    np.testing.assert_allclose(bounded_shares(found, floor, cap), found, atol=1e-9)


def test_bounds_by_hand() -> None:
    close(bounded_shares([0.8, 0.1, 0.1], 0.0, 0.5), [0.5, 0.25, 0.25])
    close(
        bounded_shares([0.9, 0.08, 0.02], 0.05, 1.0), [0.95 * 0.9 / 0.98, 0.95 * 0.08 / 0.98, 0.05]
    )
    close(bounded_shares([1.0, 0.0], 0.1, 1.0), [0.9, 0.1])
    close(bounded_shares([0.7, 0.2, 0.1], [0, 0.3, 0], [0.5, 1, 0.1]), [0.5, 0.4, 0.1])
    close(bounded_shares([5e-32, 1 - 5e-32], 0.022, 0.513), [0.487, 0.513])
    close(bounded_shares([5e-32, 5e-32, 1.0], 0.0, 0.5), [0.25, 0.25, 0.5])
    close(bounded_shares([1e-310, 3e-310, 1.0], 0.0, 0.2 + 0.4), [0.1, 0.3, 0.6])


@given(
    st.lists(st.floats(-700, 0), min_size=2, max_size=6),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_bounds_hold_for_shares_of_any_size(sizes: list[float], low: float, high: float) -> None:
    weights = np.exp(np.array(sizes) - max(sizes))
    k = weights.size
    floor, cap = low / k, 1 / k + high * (1 - 1 / k)
    found = bounded_shares(weights / weights.sum(), floor, cap)
    assert found.sum() == pytest.approx(1)
    assert (found >= floor - 1e-12).all() and (found <= cap + 1e-12).all()
    assert (np.diff(found[np.argsort(weights)]) >= -1e-12).all()


@given(st.integers(1, 300), st.integers(0, 2**32 - 1), st.booleans())
def test_shares_are_left_as_they_are(k: int, seed: int, equal: bool) -> None:
    """Checked or bounded once more, they don't change by a rounding."""
    sizes = np.ones(k) if equal else np.random.default_rng(seed).dirichlet(np.ones(k))
    once = shares(sizes / sizes.sum())
    np.testing.assert_array_equal(shares(once), once)
    kept = bounded_shares(once, 0.1 / k, min(1.0, 3.0 / k))
    np.testing.assert_array_equal(bounded_shares(kept, 0.1 / k, min(1.0, 3.0 / k)), kept)


@given(measured(), st.floats(0, 5), st.floats(0, 1))
def test_rivals_keep_shares_shares(
    case: tuple[np.ndarray, np.ndarray, np.ndarray], eta: float, smoothing: float
) -> None:
    weights, loss, reference = case
    new = rivals.doremi_update(weights, np.maximum(loss - reference, 0), eta, smoothing)
    assert new.sum() == pytest.approx(1) and (new >= smoothing / new.size - 1e-12).all()
    bandit = rivals.odm_update(np.exp(loss), t=100)
    assert bandit.sum() == pytest.approx(1)
    assert (bandit >= rivals.odm_exploration(100, bandit.size) - 1e-9).all()


NAN = [float("nan"), 1.0]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: shares([0.5, 0.6]), "sum to 1"),
        (lambda: shares([1.5, -0.5]), "negative"),
        (lambda: shares([[1.0]]), "shape"),
        (lambda: shares([]), "shape"),
        (lambda: shares(NAN), "finite"),
        (lambda: formulas.learnable_potential([0.0, 1.0], [1.0, 1.0]), "positive"),
        (lambda: formulas.learnable_potential([1.0, 1.0], [0.0, 1.0]), "positive"),
        (lambda: formulas.learnable_potential(NAN, [1.0, 1.0]), "finite"),
        (lambda: formulas.learnable_potential([1.0, 1.0], [1.0]), "shape"),
        (lambda: formulas.foster_update([0.5, 0.5], [0.1, 0.1], -1.0), "sigma"),
        (lambda: formulas.foster_update([0.5, 0.5], [-0.1, 0.1], 1.0), "potential"),
        (lambda: formulas.foster_update([0.5, 0.5], [0.1], 1.0), "shape"),
        (lambda: formulas.forgetting_degree([1.0], [0.0]), "positive"),
        (lambda: formulas.recent_progress([1.0], [float("inf")]), "finite"),
        (lambda: formulas.expansion_gate([0.1], [0.1], 1, 0.5), "target"),
        (lambda: formulas.expansion_gate([0.1], [0.1], 0, float("nan")), "epsilon"),
        (lambda: formulas.raise_target([0.5, 0.5], 0, 0.1, cap=0.0), "cap"),
        (lambda: formulas.protect_others([0.5, 0.5], [-1, 0], 0, 1.0, hold=True), "forgetting"),
        (lambda: formulas.inverse_weights([1.0]), "two domains"),
        (lambda: formulas.uniform_weights(0), "one domain"),
        (lambda: formulas.temperature_proportional([0, 0]), "counts"),
        (lambda: formulas.temperature_proportional([1, 2], 0.0), "temperature"),
        (lambda: formulas.smoothed([1.0], [1.0], 1.0), "smoothing"),
        (lambda: rivals.doremi_update([0.5, 0.5], [-1, 0], 1.0, 0.0), "excess"),
        (lambda: rivals.doremi_update([0.5, 0.5], [1, 0], 1.0, 2.0), "smoothing"),
        (lambda: rivals.odm_reward([1.0], [float("inf")]), "finite"),
        (lambda: rivals.odm_update([1.0], 0), "t must"),
        (lambda: bounded_shares([0.5, 0.5], 0.6, 1.0), "no shares fit"),
        (lambda: bounded_shares([0.5, 0.5], 0.0, 0.4), "no shares fit"),
        (lambda: bounded_shares([0.5, 0.5], 0.5, 0.4), "bounds"),
        (lambda: bounded_shares([1.0, 0.0], 0.0, 0.5), "no shares fit"),
    ],
)
def test_what_makes_no_sense_is_refused(call, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=words):
        call()


def test_a_domain_alone() -> None:
    assert formulas.mean_forgetting([0.3], 0) == 0.0
    assert formulas.mean_forgetting([0.9, 0.02, 0.04], 0) == pytest.approx(0.03)
    close(formulas.uniform_weights(1), [1.0])
    close(formulas.raise_target([1.0], 0, 0.1), [1.0])
    close(formulas.protect_others([1.0, 0.0], [0.5, 0.5], 0, 1.0, hold=True), [1.0, 0.0])
    assert rivals.odm_exploration(0, 1) == 1.0 and rivals.odm_exploration(1, 1) == 0.0


def test_without_a_cap_the_target_takes_all() -> None:
    close(formulas.raise_target([0.95, 0.05], 0, 0.1), [1.0, 0.0])
    close(formulas.raise_target([0.95, 0.05], 0, 0.1, cap=1.0), [1.0, 0.0])
    limits = {"sigma": 1.0, "epsilon": 1.0, "delta": 0.1}
    close(formulas.expand_update([0.95, 0.05], [1, 1], [0, 0], 0, **limits), [1.0, 0.0])
    close(formulas.raise_target([0.5, 0.5], 0, 0.0), [0.5, 0.5])


def test_numbers_at_the_ends_of_their_range() -> None:
    assert shares([0.5, 0.5 + 9e-7]).sum() == pytest.approx(1, abs=1e-15)
    close(formulas.smoothed([1.0], [3.0], 0.0), [1.0])
    close(formulas.smoothed([1.0], [3.0], 0.25), [1.5])
    close(formulas.protect_others([0.5, 0.5], [0, 1.0], 0, 0.0, hold=False), [0.5, 0.5])
    close(rivals.doremi_update([0.9, 0.1], [1.0, 0.0], eta=3.0, smoothing=1.0), [0.5, 0.5])
    close(rivals.doremi_update([0.9, 0.1], [1.0, 0.0], eta=0.0, smoothing=0.0), [0.9, 0.1])
    close(bounded_shares([0.7, 0.3], 0.5, 1.0), [0.5, 0.5])
    close(bounded_shares([0.7, 0.3], 0.0, 0.5), [0.5, 0.5])
    close(bounded_shares([0.7, 0.3], [0.6, 0.4], [0.6, 0.4]), [0.6, 0.4])


def test_odm_at_the_ends() -> None:
    """The decay is 0.9 unless another is given; a loss counts as 30 at most."""
    close(rivals.odm_reward([2.0], [0.0]), [1.9])
    close(rivals.odm_reward([2.0], [0.0], decay=0.0), [1.0])
    close(rivals.odm_reward([2.0], [0.0], decay=1.0), [2.0])
    close(rivals.odm_reward([0.0, 0.0], [31.0, 29.0]), [0.1 * np.exp(30), 0.1 * np.exp(29)])
    close(rivals.odm_update([5.0, 1.0], 1), [0.5, 0.5])
    # eps_1 = 1/2, below sqrt(ln 2 / 2); eps_2 = sqrt(ln 2 / 4)
    chosen, now = 1 / (1 + np.exp(-0.5 * 4)), np.sqrt(np.log(2) / 4)
    kept = 1 - 2 * now
    close(rivals.odm_update([5.0, 1.0], 2), [kept * chosen + now, kept * (1 - chosen) + now])


@pytest.mark.parametrize(
    "call",
    [
        lambda: shares([0.5, 0.5 + 2e-6]),
        lambda: formulas.raise_target([0.5, 0.5], 0, 0.1, cap=1.01),
        lambda: formulas.raise_target([0.5, 0.5], 0, -0.1),
        lambda: formulas.raise_target([0.5, 0.5], 2, 0.1),
        lambda: formulas.raise_target([0.5, 0.5], -1, 0.1),
        lambda: formulas.mean_forgetting([0.1, 0.2], 2),
        lambda: formulas.expansion_gate([0.1, 0.1], [0.1], 0, 0.5),
        lambda: formulas.expansion_gate([0.1, 0.1], [0.1, 0.1], 0, -0.5),
        lambda: formulas.protect_others([0.5, 0.5], [0.1], 0, 1.0, hold=True),
        lambda: formulas.protect_others([0.5, 0.5], [0.1, 0.1], 2, 1.0, hold=True),
        lambda: formulas.protect_others([0.5, 0.5], [0.1, 0.1], 0, -1.0, hold=True),
        lambda: formulas.temperature_proportional([-1, 2]),
        lambda: formulas.temperature_proportional([1, 2], float("inf")),
        lambda: formulas.smoothed([1.0], [1.0], -0.1),
        lambda: formulas.smoothed([1.0], [1.0, 1.0], 0.5),
        lambda: formulas.forgetting_degree([1.0], [1.0, 1.0]),
        lambda: rivals.doremi_update([0.5, 0.5], [1, 0], -1.0, 0.0),
        lambda: rivals.doremi_update([0.5, 0.5], [1, 0], 1.0, -0.1),
        lambda: rivals.doremi_update([0.5, 0.5], [1], 1.0, 0.0),
        lambda: rivals.odm_reward([1.0], [1.0, 1.0]),
        lambda: rivals.odm_reward([1.0], [1.0], decay=1.1),
        lambda: rivals.odm_reward([1.0], [1.0], decay=-0.1),
        lambda: rivals.odm_exploration(-1, 2),
        lambda: rivals.odm_exploration(1, 0),
        lambda: bounded_shares([0.5, 0.5], -0.1, 1.0),
        lambda: bounded_shares([0.5, 0.5], 0.0, 1.1),
    ],
)
def test_numbers_beyond_their_range_are_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError):
        call()


BAD = [float("inf"), 1.0]
HALF = [0.5, 0.5]


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: shares(BAD), "weights"),
        (lambda: formulas.learnable_potential(BAD, HALF), "loss"),
        (lambda: formulas.learnable_potential(HALF, BAD), "reference"),
        (lambda: formulas.learnable_potential(HALF, [0.0, 1.0]), "reference"),
        (lambda: formulas.recent_progress(BAD, HALF), "loss"),
        (lambda: formulas.recent_progress(HALF, BAD), "previous"),
        (lambda: formulas.recent_progress(HALF, [0.0, 1.0]), "previous"),
        (lambda: formulas.foster_update(HALF, BAD, 1.0), "potential"),
        (lambda: formulas.foster_update(HALF, HALF, -1.0), "sigma"),
        (lambda: formulas.forgetting_degree(BAD, HALF), "loss"),
        (lambda: formulas.forgetting_degree(HALF, BAD), "before"),
        (lambda: formulas.forgetting_degree(HALF, [0.0, 1.0]), "before"),
        (lambda: formulas.mean_forgetting(BAD, 0), "forgetting"),
        (lambda: formulas.expansion_gate(BAD, HALF, 0, 1.0), "forgetting"),
        (lambda: formulas.expansion_gate(HALF, BAD, 0, 1.0), "potential"),
        (lambda: formulas.expansion_gate(HALF, HALF, 0, -1.0), "epsilon"),
        (lambda: formulas.raise_target(HALF, 0, -1.0), "delta"),
        (lambda: formulas.protect_others(HALF, BAD, 0, 1.0, hold=True), "forgetting"),
        (lambda: formulas.protect_others(HALF, HALF, 0, -1.0, hold=True), "sigma"),
        (lambda: formulas.temperature_proportional(BAD), "counts"),
        (lambda: formulas.smoothed(BAD, HALF, 0.5), "loss"),
        (lambda: formulas.smoothed(HALF, BAD, 0.5), "before"),
        (lambda: rivals.doremi_update(HALF, BAD, 1.0, 0.0), "excess"),
        (lambda: rivals.doremi_update(HALF, HALF, -1.0, 0.0), "eta"),
        (lambda: rivals.odm_reward(BAD, HALF), "reward"),
        (lambda: rivals.odm_update(BAD, 1), "reward"),
    ],
)
def test_a_refusal_begins_with_what_was_given(call, name: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=f"^{name} (must|has)"):
        call()
