"""What is minimised, and which losses are within tolerance: by hand."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from versatune.errors import VersatuneError
from versatune.mixing.config import InStderrs, ObjectiveParams
from versatune.mixing.objective import SOFT, Objective, make_objective

DOMAINS = ("law", "code")
FIRST = np.array([4.0, 2.0])
REFERENCE = np.array([1.0, 1.0])


def of(reference: Any = REFERENCE, **params: Any) -> Objective:
    return make_objective(ObjectiveParams(**params), DOMAINS, FIRST, reference)


def test_values_by_hand() -> None:
    loss = [2.0, 1.25]
    assert of().value(loss) == pytest.approx(1.625)
    assert of(kind="relative").value(loss) == pytest.approx((0.5 + 0.625) / 2)
    # Gaps: (2 - 1) / 2 and (1.25 - 1) / 1.25.
    assert of(kind="worst").value(loss) == pytest.approx(0.5)
    assert of(kind="weighted", weights={"legal": 3, "code": 1}).value(loss) == pytest.approx(1.8125)


def test_worst_by_its_smooth_form_names_the_domain_behind() -> None:
    objective = of(kind="worst")
    smooth, gradient = objective.surrogate([3.0, 1.5])
    assert 3.0 <= smooth <= 3.0 + SOFT * math.log(2)
    np.testing.assert_allclose(gradient, [1.0, 0.0], atol=1e-9)
    # Alike far behind: both count half.
    np.testing.assert_allclose(objective.surrogate([2.0, 2.0])[1], [0.5, 0.5])


@pytest.mark.parametrize("kind", ["mean", "relative", "worst"])
@given(st.lists(st.floats(0.2, 5), min_size=2, max_size=2))
def test_gradients_are_those_of_the_surrogate(kind: str, losses: list[float]) -> None:
    objective, at, h = of(kind=kind), np.array(losses), 1e-6
    _, gradient = objective.surrogate(at)
    for j in range(2):
        step = h * np.eye(2)[j]
        up, down = objective.surrogate(at + step)[0], objective.surrogate(at - step)[0]
        assert gradient[j] == pytest.approx((up - down) / (2 * h), abs=1e-3)


def test_tolerance_by_hand() -> None:
    assert of().meets_tolerance([4.0, 2.0])
    assert not of().meets_tolerance([3.0, 2.001])
    ten = of(tolerance=0.1)
    np.testing.assert_allclose(ten.limits(), [4.4, 2.2])
    np.testing.assert_allclose(ten.excess([4.5, 2.0]), [0.1, -0.2])
    some = of(tolerance={"code": 0.5, "law": InStderrs(stderrs=2)})
    np.testing.assert_allclose(some.limits([0.05, 0.05]), [4.4, 3.0])
    only = of(tolerance={"code": 0.5})
    np.testing.assert_allclose(only.limits(), [4.0, 3.0])


def test_a_rise_within_the_noise_is_not_broken_tolerance() -> None:
    """The limit is 4.0; 4.1 lies 0.1 above it, which is 1.64 stderrs of 1.48 % and no more."""
    objective = of()
    assert objective.broken([4.1, 2.0], [0.0140, 0.01]).tolist() == [True, False]
    assert objective.broken([4.1, 2.0], [0.0155, 0.01]).tolist() == [False, False]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"kind": "weighted"}, "needs weights"),
        ({"kind": "mean", "weights": {"law": 1}}, "takes no weights"),
        ({"kind": "weighted", "weights": {"law": -1}}, ">= 0"),
        ({"kind": "weighted", "weights": {"law": 0.0}}, "not all 0"),
        ({"tolerance": -0.1}, "tolerance must be .* got -0.1"),
        ({"tolerance": {"stderrs": -1}}, "tolerance must be .* got {'stderrs': -1}"),
        ({"tolerance": {"law": "much"}}, "tolerance of law must be .* got 'much'"),
    ],
)
def test_parameters_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ObjectiveParams.model_validate(given)


def test_domains_are_refused() -> None:
    with pytest.raises(VersatuneError, match=r"objective\.weights: there is no domain 'lax'"):
        of(kind="weighted", weights={"lax": 1, "law": 1, "code": 1})
    with pytest.raises(VersatuneError, match="no weight for code"):
        of(kind="weighted", weights={"law": 1})
    with pytest.raises(VersatuneError, match=r"objective\.tolerance: there is no domain 'lax'"):
        of(tolerance={"lax": 0.1})
    with pytest.raises(VersatuneError, match="worst is the largest gap"):
        of(reference=None, kind="worst")


def test_tolerance_in_errors_needs_them() -> None:
    two = of(tolerance=InStderrs(stderrs=2))
    # 2 x 0.05 of the base's 4.0 and 2.0
    assert two.meets_tolerance([4.39, 2.19], [0.05, 0.05])
    assert not two.meets_tolerance([4.41, 2.0], [0.05, 0.05])
    assert not two.meets_tolerance([4.1, 2.0]), "without errors nothing is allowed"
    with pytest.raises(ValueError, match=r"^stderr has shape"):
        two.limits([0.05])
    with pytest.raises(ValueError, match=r"^loss has shape"):
        two.excess([4.0])


def test_what_is_broken_for_certain_by_hand() -> None:
    """Limits 4 and 2; 1.645 errors of 0.1 at 4.8 and 2.3 are 0.79 and 0.38."""
    assert of().broken([4.8, 2.4], [0.1, 0.1]).tolist() == [True, True]
    assert of().broken([4.75, 2.3], [0.1, 0.1]).tolist() == [False, False]


def test_references_of_other_domains_are_no_references() -> None:
    with pytest.raises(ValueError, match=r"^reference has shape"):
        of(reference=[1.0])
    with pytest.raises(ValueError, match=r"^reference must be positive"):
        of(reference=[1.0, 0.0])
