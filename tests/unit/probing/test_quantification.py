"""Adjusted counts and expectation maximisation: hand-worked numbers and properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from versatune.probing.quantification import (
    adjusted_shares,
    audit_chances,
    audited_mean,
    correct,
    em_shares,
    hard,
    raw_shares,
    response_matrix,
)


def test_raw_share_is_the_mean_judgement():
    p = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [0.9, 0.1]])
    assert raw_shares(p) == pytest.approx([0.6, 0.4])


def test_no_judged_text_is_refused():
    with pytest.raises(ValueError, match="no judged text"):
        raw_shares(np.zeros((0, 3)))


def test_hard_labels_put_all_mass_on_the_likeliest():
    assert hard(np.array([[0.2, 0.5, 0.3]])).tolist() == [[0, 1, 0]]


def test_response_matrix_by_hand():
    q = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8]])
    matrix = response_matrix(q, np.array([0, 0, 1]))
    assert matrix == pytest.approx(np.array([[0.8, 0.2], [0.2, 0.8]]))


def test_a_domain_without_labelled_rows_is_refused():
    with pytest.raises(ValueError, match="domain number 1"):
        response_matrix(np.array([[0.9, 0.1]]), np.array([0]))


def test_adjusted_shares_by_hand():
    # s = (0.25, 0.75): raw_0 = 0.25 * 0.9 + 0.75 * 0.2 = 0.375
    response = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert adjusted_shares(np.array([0.375, 0.625]), response) == pytest.approx([0.25, 0.75])


def test_adjusted_shares_stay_on_the_simplex():
    # raw_0 = 0.95 is more than a world of domain 0 alone (0.9) would give
    response = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert adjusted_shares(np.array([0.95, 0.05]), response) == pytest.approx([1, 0], abs=1e-9)


def test_em_of_certain_judgements_counts_them():
    p = np.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
    assert em_shares(p, np.array([0.5, 0.5])) == pytest.approx([0.75, 0.25])


def test_em_by_hand():
    # two kinds of texts, likelihood ratios 4:1 and 1:4, seen 11 and 9 times of 20:
    # the share whose mixture has them so is s with 0.8 s + 0.2 (1 - s) = 0.55
    p = np.array([[0.8, 0.2]] * 11 + [[0.2, 0.8]] * 9)
    found = em_shares(p, np.array([0.5, 0.5]), tolerance=1e-10)
    assert found == pytest.approx([0.35 / 0.6, 0.25 / 0.6], abs=1e-5)


def test_em_takes_the_prior_into_account():
    # posteriors made with prior (0.8, 0.2) for uninformative texts stay where the mass was
    p = np.tile([0.8, 0.2], (5, 1))
    assert em_shares(p, np.array([0.8, 0.2])) == pytest.approx([0.5, 0.5])


def test_em_weights_are_repetitions():
    p = np.array([[0.7, 0.3], [0.1, 0.9], [0.6, 0.4]])
    prior = np.array([0.5, 0.5])
    repeated = em_shares(p[[0, 0, 0, 1, 2]], prior)
    weighted = em_shares(p, prior, np.array([3.0, 1.0, 1.0]))
    assert weighted == pytest.approx(repeated)


def simplex(k: int) -> st.SearchStrategy[np.ndarray]:
    return arrays(float, k, elements=st.floats(0.01, 1)).map(lambda a: a / a.sum())


@given(simplex(4), st.floats(0.0, 0.6), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_adjusted_shares_undo_any_invertible_judge(shares, noise, random):
    rng = np.random.default_rng(random.randint(0, 2**32))
    response = (1 - noise) * np.eye(4) + noise * rng.dirichlet(np.ones(4), size=4)
    assert adjusted_shares(response.T @ shares, response) == pytest.approx(shares, abs=1e-4)


@given(st.integers(2, 7), st.integers(1, 40), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("correction", ["pacc", "acc", "em", "none"])
def test_every_correction_gives_shares(correction, k, n, seed):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(k), 3)
    found = correct(
        rng.dirichlet(np.ones(k), n), rng.dirichlet(np.ones(k), 3 * k), labels, correction
    )
    assert found.shape == (k,)
    assert (found >= 0).all()
    assert found.sum() == pytest.approx(1)


def test_a_perfect_judge_needs_no_correction():
    labels = np.repeat([0, 1, 2], 4)
    perfect = np.eye(3)[labels]
    samples = np.eye(3)[[0, 0, 1, 2, 2, 2]]
    for how in ("pacc", "acc", "em", "none"):
        assert correct(samples, perfect, labels, how) == pytest.approx([2 / 6, 1 / 6, 3 / 6])


def test_audited_mean_by_hand():
    # Three texts, the second judge saw the first (chance 1/2) and the last (chance 1): weights 2
    # and 1, differences -0.4 and +0.2, so -(2 * 0.4 - 0.2) / 3 = -0.2 on a mean of 0.6.
    p = np.array([[0.8, 0.2], [0.6, 0.4], [0.4, 0.6]])
    seen = np.array([[0.4, 0.6], [np.nan, np.nan], [0.6, 0.4]])
    mean = audited_mean(p, seen, np.array([0.5, 0.5, 1.0]), np.ones(3))
    assert mean == pytest.approx([0.4, 0.6])


def test_audited_mean_without_an_answer_is_the_first_judges():
    p = np.array([[0.8, 0.2], [0.6, 0.4]])
    nothing = np.full((2, 2), np.nan)
    assert audited_mean(p, nothing, np.ones(2), np.ones(2)) == pytest.approx([0.7, 0.3])


def test_an_audit_of_everything_gives_the_second_judges_mean():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet([1, 1, 1], 50), rng.dirichlet([3, 2, 1], 50)
    assert audited_mean(p, q, np.ones(50), np.ones(50)) == pytest.approx(q.mean(axis=0))


def test_on_average_an_audit_gives_the_second_judges_mean():
    # The second judge differs where the first is unsure, which is also where it looks more often.
    rng = np.random.default_rng(0)
    p = rng.dirichlet([0.5, 0.5], 400)
    q = np.where(p.max(axis=1, keepdims=True) < 0.7, [[1.0, 0.0]], p)
    chances = audit_chances(p, 100)
    found = []
    for _ in range(300):
        drawn = rng.random(400) < chances
        seen = np.full_like(p, np.nan)
        seen[drawn] = q[drawn]
        found.append(audited_mean(p, seen, chances, np.ones(400))[0])
    away = q[:, 0].mean() - p[:, 0].mean()
    assert away > 0.1
    assert np.mean(found) == pytest.approx(q[:, 0].mean(), abs=0.02 * away + 0.005)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 60), st.integers(1, 80), st.integers(0, 10_000), st.sampled_from([0.05, 1, 20])
)
def test_chances_of_an_audit_sum_to_its_size_and_none_is_small(total, n, seed, spread):
    p = np.random.default_rng(seed).dirichlet(np.full(3, spread), total)
    chances = audit_chances(p, n)
    assert chances.sum() == pytest.approx(min(n, total))
    assert (chances <= 1).all()
    assert (chances >= min(n / (2 * total), 1) - 1e-12).all()
    if n < total:
        order = np.argsort(p.max(axis=1))
        assert (np.diff(chances[order]) <= 1e-12).all()  # the surer, the smaller


def test_chances_of_an_audit_by_hand():
    # sqrt(1 - p): 0, 0, .5, .5, twice their mean for the unsure: half even, half in proportion
    p = np.array([[1.0, 0.0], [0.0, 1.0], [0.75, 0.25], [0.25, 0.75]])
    assert audit_chances(p, 2) == pytest.approx([0.25, 0.25, 0.75, 0.75])
    # 3/8, 3/8, 9/8, 9/8: the last two are certain, the first two share what is left
    assert audit_chances(p, 3) == pytest.approx([0.5, 0.5, 1, 1])
    assert audit_chances(p, 4).tolist() == audit_chances(p, 9).tolist() == [1.0] * 4
    assert audit_chances(p[:2], 1) == pytest.approx([0.5, 0.5])


def test_audited_mean_counts_texts_as_often_as_they_were_drawn():
    # The first text counts 3 times of 4; only it was seen, so its difference is the correction.
    p = np.array([[0.8, 0.2], [0.4, 0.6]])
    seen = np.array([[0.5, 0.5], [np.nan, np.nan]])
    mean = audited_mean(p, seen, np.array([0.5, 0.25]), np.array([3.0, 1.0]))
    assert mean == pytest.approx([0.7 - 0.3, 0.3 + 0.3])


def test_em_may_be_stopped_after_a_step():
    # from equal shares a step gives the mean judgement: .55 * .8 + .45 * .2
    p = np.array([[0.8, 0.2]] * 11 + [[0.2, 0.8]] * 9)
    even = np.array([0.5, 0.5])
    assert em_shares(p, even, max_steps=1) == pytest.approx([0.53, 0.47])
    assert em_shares(p, even, tolerance=0.1) == pytest.approx([0.53, 0.47])


def test_em_of_a_text_that_no_domain_explains():
    p = np.array([[1.0, 0.0], [0.0, 0.0]])
    assert em_shares(p, np.array([0.5, 0.5])) == pytest.approx([1.0, 0.0])


def test_adjusted_counts_are_of_the_likeliest_domains():
    # Three of four samples look like the first domain; of its rows all do, of the other's a half.
    judged = np.array([[0.6, 0.4], [0.9, 0.1], [0.7, 0.3], [0.2, 0.8]])
    rows = np.array([[0.8, 0.2], [0.6, 0.4], [0.9, 0.1], [0.3, 0.7]])
    labels = np.array([0, 0, 1, 1])
    # s + (1 - s) / 2 = 3/4
    assert correct(judged, rows, labels, "acc") == pytest.approx([0.5, 0.5], abs=1e-6)
    assert correct(judged, rows, labels, "pacc") != pytest.approx([0.5, 0.5], abs=0.05)
