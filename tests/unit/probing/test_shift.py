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
