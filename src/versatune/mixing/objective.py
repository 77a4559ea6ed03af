"""What training is to minimise, declared once: a number of the domains' held-out losses.

Arrays have shape (k,), losses are held-out nats per token. Every function raises ValueError on a
wrong shape, NaN, or a loss that is not positive.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from versatune.domains import canonical, choose
from versatune.errors import VersatuneError
from versatune.mixing.config import InStderrs, Kind, ObjectiveParams
from versatune.mixing.shares import Array, like, losses, normalised, vector

SOFT = 0.02
"""How far below the largest of the ratios l / r another still counts in the smooth maximum."""

IN_WORDS: dict[Kind, str] = {
    "mean": "mean held-out loss",
    "relative": "mean held-out loss as a part of the base model's",
    "worst": "largest gap to the references",
    "weighted": "weighted mean held-out loss",
}
"""What each kind of objective is a number of."""

POINTS: dict[Kind, str] = {"worst": "points of the largest gap"}
"""The units of gains that are differences; all other gains are in % of what equal shares reach."""

ONE_SIDED = 1.6448536269514722
"""The 95 % point of the normal distribution: a rise beyond so many standard errors is real."""


@dataclass(frozen=True)
class Objective:
    """An objective with the numbers it needs; arrays have shape (k,)."""

    kind: Kind
    weights: Array
    """c_j, sum 1, of ``mean``, ``relative`` and ``weighted``."""
    first: Array
    """l_j(0), the base model's losses: the unit of ``relative``."""
    reference: Array | None
    """r_j, which ``worst`` measures gaps to."""
    allowed_rise: Array
    """Allowed rise over the base, as a part of l_j(0)."""
    allowed_stderrs: Array
    """Allowed rise over the base in standard errors of the paired change, added to the former."""

    def value(self, loss: npt.ArrayLike) -> float:
        """The objective at these losses; less is better.

        ``mean`` and ``weighted``: sum_j c_j l_j; ``relative``: sum_j c_j l_j / l_j(0);
        ``worst``: the largest relative gap max_j (l_j - r_j) / l_j (gamma of the paper, unclipped).
        """
        now = losses("loss", loss)
        if self.kind == "worst":
            assert self.reference is not None
            return float(((now - self.reference) / now).max())
        return float(self._scale() @ now)

    def gain(self, value: npt.ArrayLike, over: npt.ArrayLike) -> Array:
        """What ``value`` gains over the objective's value ``over``, as a part of the latter.

        For ``worst`` the difference: a gap is a part of a loss already, and may be 0.
        """
        better = np.asarray(over, dtype=np.float64) - np.asarray(value, dtype=np.float64)
        return np.asarray(better if self.kind in POINTS else better / np.abs(over))

    def told(self, value: float, *, change: bool = False) -> str:
        """A value for a sentence: nats per token, or a part as per cent; ``change``: of two."""
        if self.kind in ("mean", "weighted"):
            return f"{value:.4f}"
        return f"{100 * value:.2f} {'points' if change else '%'}"

    def surrogate(self, loss: npt.ArrayLike) -> tuple[Array, Array]:
        """A smooth objective with the same minimum, and its gradient u_j = d/dl_j.

        ``loss`` (k,), or (n, k) for n numbers, positive. It is :meth:`value` itself but for
        ``worst``: since max_j (1 - r_j / l_j) is least where max_j l_j / r_j is, that is
        T ln sum_j exp(l_j / (r_j T)) with T = :data:`SOFT`, which is convex in the losses and at
        most T ln k above the maximum.
        """
        now = np.asarray(loss, dtype=np.float64)
        if self.kind != "worst":
            scale = self._scale()
            return now @ scale, np.broadcast_to(scale, now.shape)
        assert self.reference is not None
        ratio = now / self.reference
        most = ratio.max(-1, keepdims=True)
        raised = np.exp((ratio - most) / SOFT)
        total = raised.sum(-1, keepdims=True)
        smooth = (most + SOFT * np.log(total)).squeeze(-1)
        return smooth, raised / total / self.reference

    def limits(self, stderr: npt.ArrayLike | None = None) -> Array:
        """The highest loss within tolerance by domain.

        ``stderr``: of ln(l / l(0)), paired by row; an allowance in standard errors is in these.
        """
        error = np.zeros_like(self.first) if stderr is None else like(self.first, "stderr", stderr)
        return self.first * (1 + self.allowed_rise + self.allowed_stderrs * error)

    def excess(self, loss: npt.ArrayLike, stderr: npt.ArrayLike | None = None) -> Array:
        """How far each loss lies above its limit, negative below; infinite tolerance gives -inf."""
        return losses("loss", like(self.first, "loss", loss)) - self.limits(stderr)

    def meets_tolerance(self, loss: npt.ArrayLike, stderr: npt.ArrayLike | None = None) -> bool:
        """Whether no domain's loss is above its limit."""
        return bool((self.excess(loss, stderr) <= 0).all())

    def broken(self, loss: npt.ArrayLike, stderr: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Which domains are above their limit for certain: one-sided 95 %, each on its own.

        ``stderr``: of ln(l / l(0)), paired by row. A domain above its limit by less than the
        noise of that change is not counted.
        """
        error = like(self.first, "stderr", stderr)
        result: npt.NDArray[np.bool_] = self.excess(loss, error) > ONE_SIDED * error * np.asarray(
            loss
        )
        return result

    def _scale(self) -> Array:
        return self.weights / self.first if self.kind == "relative" else self.weights


def make_objective(
    params: ObjectiveParams,
    domains: tuple[str, ...],
    first: npt.ArrayLike,
    reference: npt.ArrayLike | None = None,
) -> Objective:
    """The objective of ``params`` for ``domains`` whose base losses are ``first``.

    Raises VersatuneError when a name is unknown, a weight is missing, or ``worst`` has no
    references.
    """
    k, start = len(domains), losses("first", first)
    if params.kind == "worst" and reference is None:
        raise VersatuneError(
            "objective.kind worst is the largest gap to the references, and there are none: "
            "measure them (references.mode: measure), or choose mean or relative."
        )
    return Objective(
        kind=params.kind,
        weights=_weights(params.weights, domains) if params.weights else np.full(k, 1 / k),
        first=start,
        reference=None
        if reference is None
        else losses("reference", like(start, "reference", reference)),
        allowed_rise=_allowed(params, domains, stderrs=False),
        allowed_stderrs=_allowed(params, domains, stderrs=True),
    )


def _weights(weights: dict[str, float], domains: tuple[str, ...]) -> Array:
    given = {canonical(name): value for name, value in weights.items()}
    for name in given:
        choose(name, domains, "objective.weights")
    missing = [name for name in domains if name not in given]
    if missing:
        raise VersatuneError(
            f"objective.weights has no weight for {', '.join(missing)}; give 0 to leave one out."
        )
    return normalised(vector("weights", [given[name] for name in domains]))


def _allowed(params: ObjectiveParams, domains: tuple[str, ...], *, stderrs: bool) -> Array:
    """What the tolerance allows each domain, as parts or in standard errors; 0 if not in these.

    A domain that a mapping does not name has tolerance 0.
    """
    given = params.tolerance
    if isinstance(given, dict):
        by_name = {canonical(name): value for name, value in given.items()}
        for name in by_name:
            choose(name, domains, "objective.tolerance")
        each = [by_name.get(name, 0.0) for name in domains]
    else:
        each = [given] * len(domains)
    return np.array(
        [
            (value.stderrs if isinstance(value, InStderrs) else 0.0)
            if stderrs
            else (0.0 if isinstance(value, InStderrs) else value)
            for value in each
        ],
        dtype=np.float64,
    )
