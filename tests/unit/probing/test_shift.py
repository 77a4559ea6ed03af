"""The check of the correction's assumption."""

import numpy as np
import pytest

from versatune.probing.judges.base import Judgement, Labelled
from versatune.probing.shift import diagnose, distance, row_weights


def rows(n: int, rng: np.random.Generator, sharp: float = 4) -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat([0, 1, 2], n)
    alpha = np.ones((3 * n, 3))
    alpha[np.arange(3 * n), labels] = sharp
    return np.stack([rng.dirichlet(a) for a in alpha]), labels


def test_weights_give_the_domains_their_shares():
    labelled = Labelled(np.eye(2)[[0, 0, 0, 1]], np.array([0, 0, 0, 1]), np.zeros(4))
    assert row_weights(labelled, np.array([0.6, 0.4])) == pytest.approx([0.2, 0.2, 0.2, 0.4])


def test_distance_by_hand():
    # at 0.5 all of the sample, a quarter of the reference's weight has been passed
    a, b = np.array([0.1, 0.4]), np.array([0.3, 0.8, 0.9])
    found = distance(a, b, np.full(2, 0.5), np.array([0.25, 0.25, 0.5]))
    assert found == pytest.approx(0.75)


def test_distance_of_equal_samples_is_zero():
    x = np.array([0.1, 0.5, 0.5, 0.9])
    assert distance(x, x, np.full(4, 0.25), np.full(4, 0.25)) == pytest.approx(0)


def test_changed_shares_alone_are_no_shift():
    rng = np.random.default_rng(0)
    q, labels = rows(400, rng)
    p, truth = rows(600, rng)
    p = p[np.concatenate([np.flatnonzero(truth == 0), np.flatnonzero(truth == 1)[:100]])]
    labelled = Labelled(q, labels, np.full(len(q), np.nan))
    judged = Judgement(p, ["ok"] * len(p), np.full(len(p), np.nan))
    found = diagnose(judged, labelled, np.array([6 / 7, 1 / 7, 0]))
    assert not found["doubtful"]
    assert found["confidence_distance"] < found["by_chance"]
    assert found["unfamiliar_share"] is None


def test_texts_judged_unlike_the_rows_are_doubtful():
    rng = np.random.default_rng(0)
    q, labels = rows(400, rng, sharp=12)
    p, _ = rows(400, rng, sharp=1)
    labelled = Labelled(q, labels, np.linspace(0, 1, len(q)))
    judged = Judgement(p, ["ok"] * len(p), np.full(len(p), 0.01))
    found = diagnose(judged, labelled, np.full(3, 1 / 3))
    assert found["doubtful"]
    assert found["unfamiliar_share"] == 1


def by_hand(status: str = "ok") -> tuple[Judgement, Labelled]:
    """Confidences .65 and .95, and .9 of a text that counts where its status is ``ok``."""
    rows = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    labelled = Labelled(rows, np.array([0, 0, 1, 1]), np.array([0.6, 0.1, 0.9, 0.5]))
    p = np.array([[0.65, 0.35], [0.05, 0.95], [0.9, 0.1]])
    known = np.array([0.05, 0.1, 0.0 if status == "ok" else np.nan])
    return Judgement(p, ["ok", "ok", status], known), labelled


def test_the_diagnosis_by_hand():
    """Rows weigh a quarter each, the two texts that count 1/4 and 3/4."""
    judged, labelled = by_hand("failed")
    found = diagnose(judged, labelled, np.array([0.5, 0.5]), np.array([1.0, 3.0, 9.0]))
    # At 0.9 all rows have been passed and the first text.
    assert found["confidence_distance"] == pytest.approx(0.75)
    assert found["by_chance"] == pytest.approx(1.36 * np.sqrt(1 / 16 + 9 / 16 + 4 / 16))
    assert not found["doubtful"], "so few texts differ by as much by chance"
    # The row that knows least knows .1: below that lies the first text alone.
    assert found["unfamiliar_share"] == pytest.approx(0.25)


def test_each_judged_text_counts_once_by_default():
    judged, labelled = by_hand()
    found = diagnose(judged, labelled, np.array([0.5, 0.5]))
    assert found["unfamiliar_share"] == pytest.approx(2 / 3)
    # Texts .65, .9, .95 of a third each; rows .6, .7, .8, .9: at .8 three quarters to a third.
    assert found["confidence_distance"] == pytest.approx(3 / 4 - 1 / 3)
    assert found["by_chance"] == pytest.approx(1.36 * np.sqrt(1 / 3 + 1 / 4))


def test_a_distance_above_chance_is_doubtful_from_a_size_on():
    """1,000 texts at 0.8, 1,000 rows of which a part lies at 0.9: that part is the distance."""
    p = np.tile([0.8, 0.2], (1000, 1))
    for part, doubtful in ((0.29, False), (0.31, True)):
        rows = np.where(np.arange(1000)[:, None] < part * 1000, [[0.9, 0.1]], p)
        labels = np.arange(1000) % 2
        labelled = Labelled(rows, labels, np.full(1000, np.nan))
        judged = Judgement(p, ["ok"] * 1000, np.full(1000, np.nan))
        found = diagnose(judged, labelled, np.array([0.5, 0.5]))
        assert found["confidence_distance"] == pytest.approx(part)
        assert found["confidence_distance"] > found["by_chance"]
        assert found["doubtful"] is doubtful


def test_the_edge_of_the_unfamiliar_is_the_twentieth_by_weight():
    """Rows that know 1 to 100 %: the fifth of them has 5 % of the weight at or below it."""
    labelled = Labelled(np.eye(2)[[0, 1] * 50], np.array([0, 1] * 50), np.arange(100, 0, -1) / 100)
    for known, share in ((0.0499, 1.0), (0.05, 0.0)):
        judged = Judgement(np.eye(2)[[0, 1]], ["ok"] * 2, np.full(2, known))
        found = diagnose(judged, labelled, np.array([0.5, 0.5]))
        assert found["unfamiliar_share"] == share
