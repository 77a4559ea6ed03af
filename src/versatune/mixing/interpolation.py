"""Which of several models between the base and the trained one is taken."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from versatune.mixing.objective import Objective
from versatune.mixing.shares import Array


def choose_part(
    losses: Array,
    stderrs: Array,
    objective: Objective,
    targets: npt.NDArray[np.bool_],
    margin: float = 0.0,
) -> tuple[int, str]:
    """The row of ``losses`` that is taken, and why in words.

    ``losses``, shape (m, k): held-out losses of m models, in the order from base to trained;
    ``stderrs``: of ln(l / l(0)), paired by row; ``targets``, shape (k,): the domains to raise, none
    where all count. Among the models in which each domain that is no target is within its tolerance
    by ``margin`` standard errors it is the one with the lowest objective (with targets: their
    lowest mean l / l(0)), the nearest to the trained one of several; where there is none, the one
    that is least beyond, as a part of the base model's loss.
    """
    beyond = np.array(
        [objective.excess(row, error) for row, error in zip(losses, stderrs, strict=True)]
    )
    beyond += margin * stderrs * losses
    beyond = np.where(targets, -np.inf, beyond / objective.first).max(axis=1)
    if not (beyond <= 0).any():
        least = _last_least(beyond)
        return least, f"none keeps to the tolerance; this one is {100 * beyond[least]:.2f} % beyond"
    scores = _scores(losses, objective, targets)
    scores[beyond > 0] = np.inf
    return _last_least(scores), "the best of those within the tolerance"


def _scores(losses: Array, objective: Objective, targets: npt.NDArray[np.bool_]) -> Array:
    if targets.any():
        return np.asarray((losses / objective.first)[:, targets].mean(axis=1))
    return np.array([objective.value(row) for row in losses])


def _last_least(values: Sequence[float] | Array) -> int:
    return len(values) - 1 - int(np.argmin(np.asarray(values)[::-1]))
