"""How the agreement of two judges is counted where no truth is known."""

import numpy as np
import pytest

from tests.benchmarks.probe_real import kappa


def test_kappa_by_hand():
    # Alike in 3 of 4; by chance in 1/2 * 1/4 + 1/2 * 3/4 = 1/2: (3/4 - 1/2) / (1 - 1/2).
    assert kappa(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 2) == pytest.approx(0.5)


def test_kappa_of_judges_that_agree_as_chance_has_it_is_zero():
    a, b = np.repeat([0, 1, 2], 3), np.tile([0, 1, 2], 3)
    assert kappa(a, b, 3) == pytest.approx(0)
    assert kappa(a, a, 3) == pytest.approx(1)
