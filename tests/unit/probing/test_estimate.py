"""Intervals, stopping, bounds."""

import numpy as np
import pytest

from versatune.probing.estimate import Audit, Estimate, bounds, estimate_shares, narrow_enough
from versatune.probing.judges.base import Labelled


def certain(counts: list[int]) -> np.ndarray:
    return np.eye(len(counts))[np.repeat(np.arange(len(counts)), counts)]


def perfect_rows(k: int, n: int = 20) -> Labelled:
    labels = np.repeat(np.arange(k), n)
    return Labelled(np.eye(k)[labels], labels, np.full(len(labels), np.nan))


def test_a_perfect_judge_leaves_the_binomial_interval():
    # 300 of 1000: +-1.96 sqrt(0.3 * 0.7 / 1000) = +-0.0284
    found = estimate_shares(certain([300, 700]), perfect_rows(2, 4000), "pacc", 2000, 0)
    assert found.share == pytest.approx([0.3, 0.7])
    assert found.raw == pytest.approx([0.3, 0.7])
    assert found.low[0] == pytest.approx(0.3 - 0.0284, abs=0.003)
    assert found.high[0] == pytest.approx(0.3 + 0.0284, abs=0.003)


def test_few_rows_without_an_error_do_not_prove_a_perfect_judge():
    # 20 rows right: an error of 3 / 20 may have gone unseen, and would move 0.7 by as much
    found = estimate_shares(certain([300, 700]), perfect_rows(2), "pacc", 1000, 0)
    assert found.share == pytest.approx([0.3, 0.7])
    assert 0.05 < 0.3 - found.low[0] < 0.15 and 0.025 < found.high[0] - 0.3 < 0.06


def test_few_labelled_rows_widen_the_interval():
    rng = np.random.default_rng(0)
    samples = rng.dirichlet([2, 1], 2000)

    def rows(n: int) -> Labelled:
        labels = np.repeat([0, 1], n)
        q = np.where(
            labels[:, None] == 0, rng.dirichlet([4, 1], 2 * n), rng.dirichlet([1, 4], 2 * n)
        )
        return Labelled(q, labels, np.full(2 * n, np.nan))

    few = estimate_shares(samples, rows(15), "pacc", 300, 0)
    many = estimate_shares(samples, rows(1500), "pacc", 300, 0)
    assert few.half_widths.max() > 2 * many.half_widths.max()


def test_the_same_seed_gives_the_same_interval():
    p = np.random.default_rng(1).dirichlet([1, 2, 3], 200)
    first, again = (estimate_shares(p, perfect_rows(3), "pacc", 100, 7) for _ in range(2))
    assert (first.low == again.low).all()
    assert (first.high == again.high).all()


def test_a_share_lies_in_its_interval_even_on_the_edge():
    found = estimate_shares(certain([50, 0, 0]), perfect_rows(3), "pacc", 100, 0)
    assert (found.low <= found.share).all()
    assert (found.share <= found.high).all()


@pytest.mark.parametrize("correction", ["acc", "em", "none"])
def test_other_corrections_have_intervals_too(correction):
    p = np.random.default_rng(1).dirichlet([1, 2, 3], 200)
    found = estimate_shares(p, perfect_rows(3), correction, 100, 7)
    assert (found.high - found.low).max() > 0.01
    assert (found.low <= found.share).all()
    assert (found.share <= found.high).all()


def estimate(share: list[float], half: float) -> Estimate:
    s = np.array(share)
    return Estimate(s, s - half, s + half, s, s - half, s + half)


def test_stops_when_every_interval_is_narrow():
    assert narrow_enough(estimate([0.5, 0.5], 0.019), 2400, 0.02)
    assert not narrow_enough(estimate([0.5, 0.5], 0.021), 2400, 0.02)


def test_few_samples_never_stop_however_narrow():
    # 1.96 / 50 = 0.039 > 0.02: a share not met in 50 samples is not known to +-0.02
    assert not narrow_enough(estimate([1.0, 0.0], 0.0), 50, 0.02)


def test_missing_judgements_bound_the_share_from_both_sides():
    # a tenth unjudged: 0.9 * [0.2, 0.3], and a tenth more at most
    assert bounds(0.2, 0.3, 0.1) == pytest.approx((0.18, 0.37))
    assert bounds(0.2, 0.3, 0.0) == (0.2, 0.3)


def audit_of_half() -> tuple[np.ndarray, Audit]:
    """A first judge that can't tell, of 1000 texts; a second one right about 500, 150 of them 0."""
    first = np.tile([0.4, 0.6], (1000, 1))
    second = np.full((1000, 2), np.nan)
    second[:500] = np.array([[0.9, 0.1]] * 150 + [[0.1, 0.9]] * 350)
    rows = perfect_rows(2, 4000)
    sure = np.where(rows.probabilities == 1, 0.9, 0.1)
    return first, Audit(
        second, np.full(1000, 0.5), Labelled(sure, rows.labels, rows.vocab_coverage)
    )


@pytest.mark.parametrize(
    ("correction", "wanted", "reach"),
    [
        ("acc", 0.3, 1.96 * np.sqrt(0.3 * 0.7 / 500)),
        ("pacc", 0.3, 1.96 * np.sqrt(0.3 * 0.7 / 500)),
        # Means of 0.9 and 0.1 as they are: 0.3 * 0.8 + 0.1, with 0.8 of the spread.
        ("none", 0.34, 0.8 * 1.96 * np.sqrt(0.3 * 0.7 / 500)),
    ],
)
def test_an_audits_interval_is_that_of_drawing_its_texts_again(correction, wanted, reach):
    first, audit = audit_of_half()
    found = estimate_shares(first, perfect_rows(2), correction, 800, 0, audit=audit)
    assert found.share == pytest.approx([wanted, 1 - wanted], abs=1e-6)
    assert found.share[0] - found.low[0] == pytest.approx(reach, abs=0.005)
    assert found.high[0] - found.share[0] == pytest.approx(reach, abs=0.005)
    for raw in (found.raw, found.raw_low, found.raw_high):
        assert raw == pytest.approx([0.4, 0.6])


def test_an_audit_gives_no_probabilities_for_every_text():
    first, audit = audit_of_half()
    with pytest.raises(ValueError, match="em needs the same judge"):
        estimate_shares(first, perfect_rows(2), "em", 10, 0, audit=audit)


def test_other_levels_have_other_tails():
    # 90 %: 1.6449 standard errors instead of 1.96
    found = estimate_shares(certain([300, 700]), perfect_rows(2, 4000), "none", 4000, 0, level=0.9)
    reach = 1.6449 * np.sqrt(0.3 * 0.7 / 1000)
    assert found.low[0] == pytest.approx(0.3 - reach, abs=0.0015)
    assert found.high[0] == pytest.approx(0.3 + reach, abs=0.0015)


def test_the_raw_interval_beside_an_audit_is_the_first_judges_own():
    _, audit = audit_of_half()
    found = estimate_shares(certain([300, 700]), perfect_rows(2), "acc", 800, 0, audit=audit)
    reach = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert found.raw == pytest.approx([0.3, 0.7])
    assert found.raw_low[0] == pytest.approx(0.3 - reach, abs=0.004)
    assert found.raw_high[0] == pytest.approx(0.3 + reach, abs=0.004)


def test_counting_answers_has_the_interval_of_the_counts():
    """0.6 against 0.4 is an answer as good as 1 against 0 where the likeliest one counts."""

    def unsure(certain: np.ndarray) -> np.ndarray:
        return np.where(certain == 1, 0.6, 0.4)

    rows = perfect_rows(2, 4000)
    labelled = Labelled(unsure(rows.probabilities), rows.labels, rows.vocab_coverage)
    found = estimate_shares(unsure(certain([300, 700])), labelled, "acc", 800, 0)
    reach = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert found.share == pytest.approx([0.3, 0.7])
    assert found.low[0] == pytest.approx(0.3 - reach, abs=0.004)
    assert found.high[0] == pytest.approx(0.3 + reach, abs=0.004)


def test_without_a_correction_the_interval_is_the_raw_one():
    p = np.random.default_rng(1).dirichlet([1, 2, 3], 200)
    rows = perfect_rows(3)
    unsure = Labelled(0.7 * rows.probabilities + 0.1, rows.labels, rows.vocab_coverage)
    found = estimate_shares(p, unsure, "none", 100, 7)
    assert (found.share == found.raw).all()
    assert (found.low == found.raw_low).all() and (found.high == found.raw_high).all()


def test_a_part_of_an_audit_has_the_chances_and_answers_of_its_texts():
    _, audit = audit_of_half()
    chances = np.linspace(0.1, 1, 1000)
    part = Audit(audit.probabilities, chances, audit.labelled).part(np.array([499, 149]))
    assert part.probabilities.tolist() == [[0.1, 0.9], [0.9, 0.1]]
    assert part.chances.tolist() == [chances[499], chances[149]]
    assert part.labelled is audit.labelled


def test_an_audit_as_a_judgement_says_which_texts_were_asked_about():
    _, audit = audit_of_half()
    part = audit.part(np.array([0, 999])).judgement
    assert part.status == ["ok", "failed"] and np.isnan(part.vocab_coverage).all()
    known = Audit(audit.probabilities, audit.chances, audit.labelled, np.full(1000, 0.5))
    assert (known.judgement.vocab_coverage == 0.5).all()
