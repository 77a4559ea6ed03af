"""The formulas of VersaTune (arXiv 2411.11266), one pure function each.

Arrays have shape (k,), one entry a domain; losses are held-out nats per token unless said
otherwise, shares sum to 1. Nothing is changed in place. Every function raises ValueError on a
wrong shape, NaN, an infinite value, a loss that is not positive, or shares that are not shares:
these are programming errors, since user input was validated before.
"""

import numpy as np
import numpy.typing as npt

from versatune.mixing.shares import (
    Array,
    index,
    like,
    losses,
    normalised,
    not_negative,
    shares,
    vector,
)


def learnable_potential(loss: npt.ArrayLike, reference: npt.ArrayLike) -> Array:
    """gamma_j = max((l_j - r_j) / l_j, 0), the part of the loss that can still be learnt.

    ``loss`` l_j > 0 is the current model's, ``reference`` r_j > 0 what a model trained only on
    the domain reaches, both held-out and under one tokenizer. Range [0, 1), free of the
    losses' scale. A reference of 0 is refused: only training rows can be memorised so far.
    Source: paper, Algorithm 2.
    """
    current = losses("loss", loss)
    goal = like(current, "reference", reference)
    losses("reference", goal)
    return np.maximum((current - goal) / current, 0.0)


def recent_progress(loss: npt.ArrayLike, previous: npt.ArrayLike) -> Array:
    """max((l_j(t-1) - l_j(t)) / l_j(t-1), 0): gamma without references, in [0, 1).

    How much the held-out loss fell since the last measurement, as a part of it. This project's,
    not the paper's: a domain that still falls fast still has something to learn.
    """
    current = losses("loss", loss)
    before = like(current, "previous", previous)
    losses("previous", before)
    return np.maximum((before - current) / before, 0.0)


def foster_update(weights: npt.ArrayLike, potential: npt.ArrayLike, sigma: float) -> Array:
    """P_j(t) = P_j(t-1) (1 + sigma gamma_j), divided by the sum over domains.

    ``sigma`` >= 0; 0, or the same gamma everywhere, leaves the shares as they are. A positive
    share stays positive. Source: paper, Algorithm 2 (as recalled).
    """
    old = shares(weights)
    gamma = like(old, "potential", potential)
    if (gamma < 0).any():
        raise ValueError(f"potential must not be negative, got {gamma.tolist()}")
    not_negative("sigma", sigma)
    return normalised(old * (1.0 + sigma * gamma))


def forgetting_degree(loss: npt.ArrayLike, before: npt.ArrayLike) -> Array:
    """phi_j = max((l_j(t) - b_j) / b_j, 0), how much the loss has risen, as a part of b_j.

    ``before`` b_j > 0 is the previous measurement in the paper (Algorithm 3), or the lowest so
    far. Range [0, inf); free of the losses' scale.
    """
    current = losses("loss", loss)
    base = like(current, "before", before)
    losses("before", base)
    return np.maximum((current - base) / base, 0.0)


def mean_forgetting(forgetting: npt.ArrayLike, target: int) -> float:
    """Mean of phi_j over the domains other than ``target``; 0 when it is the only one."""
    phi = vector("forgetting", forgetting)
    index(target, phi)
    others = np.delete(phi, target)
    return float(others.mean()) if others.size else 0.0


def expansion_gate(
    forgetting: npt.ArrayLike, potential: npt.ArrayLike, target: int, epsilon: float
) -> bool:
    """Whether the target may be raised: mean over j != e of phi_j < epsilon gamma_e.

    ``forgetting`` phi and ``potential`` gamma of all domains, ``target`` the index e,
    ``epsilon`` >= 0. Closed when nothing is left to learn (gamma_e = 0).
    Source: paper, Algorithm 3 (as recalled).
    """
    phi = vector("forgetting", forgetting)
    gamma = like(phi, "potential", potential)
    index(target, phi)
    not_negative("epsilon", epsilon)
    return mean_forgetting(phi, target) < epsilon * float(gamma[target])


def raise_target(weights: npt.ArrayLike, target: int, delta: float, cap: float = 1.0) -> Array:
    """P_e + delta, at most ``cap``; the other shares are scaled to fill the rest.

    ``delta`` >= 0, ``cap`` in (0, 1]; a target that starts above the cap stays where it is.
    When the others have no share at all, the shares are returned unchanged.
    Source: paper, Algorithm 3, gate open (as recalled); the cap is this project's.
    """
    old = shares(weights)
    index(target, old)
    not_negative("delta", delta)
    if not 0 < cap <= 1:
        raise ValueError(f"cap must lie in (0, 1], got {cap}")
    raised = max(float(old[target]), min(float(old[target]) + delta, cap))
    rest = 1.0 - float(old[target])
    if rest <= 0:
        return old
    new = old * ((1.0 - raised) / rest)
    new[target] = raised
    return normalised(new)


def protect_others(
    weights: npt.ArrayLike, forgetting: npt.ArrayLike, target: int, sigma: float, *, hold: bool
) -> Array:
    """P_j (1 + sigma phi_j) for j != e, rescaled: the gate is closed, what is lost gets more.

    With ``hold`` the target keeps its share and the others share the rest; without it all
    shares are divided by their sum, so that the target gives way to what is being forgotten.
    Source: paper, Algorithm 3, gate closed (as recalled, weakly: hence both readings).
    """
    old = shares(weights)
    phi = like(old, "forgetting", forgetting)
    if (phi < 0).any():
        raise ValueError(f"forgetting must not be negative, got {phi.tolist()}")
    index(target, old)
    not_negative("sigma", sigma)
    new = old * (1.0 + sigma * phi)
    new[target] = old[target]
    others = float(new.sum()) - float(new[target])
    if hold and others > 0:
        scale = (1.0 - float(old[target])) / others
        new = new * scale
        new[target] = old[target]
    return normalised(new)


def expand_update(
    weights: npt.ArrayLike,
    potential: npt.ArrayLike,
    forgetting: npt.ArrayLike,
    target: int,
    *,
    sigma: float,
    epsilon: float,
    delta: float,
    cap: float = 1.0,
    hold: bool = False,
) -> Array:
    """One step of Algorithm 3: :func:`raise_target` if the gate is open, else protect_others."""
    if expansion_gate(forgetting, potential, target, epsilon):
        return raise_target(weights, target, delta, cap)
    return protect_others(weights, forgetting, target, sigma, hold=hold)


def uniform_weights(k: int) -> Array:
    """1/k for each of ``k`` >= 1 domains."""
    if k < 1:
        raise ValueError(f"there must be at least one domain, got {k}")
    return np.full(k, 1.0 / k)


def inverse_weights(detected: npt.ArrayLike) -> Array:
    """w_j = (1 - P_j) / sum_i (1 - P_i): the paper's baseline against the detected shares.

    Needs at least two domains.
    """
    known = shares(detected)
    if known.size < 2:
        raise ValueError("inverse weights need at least two domains")
    return normalised(1.0 - known)


def temperature_proportional(counts: npt.ArrayLike, temperature: float = 1.0) -> Array:
    """w_j proportional to n_j^(1/T); T = 1 is the stratified mix, T -> inf uniform.

    ``counts`` n_j >= 0, not all zero, in any unit; a domain without data gets 0.
    ``temperature`` > 0. Source: common in multilingual training (mT5: T = 1/alpha).
    """
    n = vector("counts", counts)
    if (n < 0).any() or not n.any():
        raise ValueError(f"counts must not be negative nor all zero, got {n.tolist()}")
    if not temperature > 0 or not np.isfinite(temperature):
        raise ValueError(f"temperature must be positive, got {temperature}")
    return normalised((n / n.max()) ** (1.0 / temperature))


def smoothed(loss: npt.ArrayLike, before: npt.ArrayLike, smoothing: float) -> Array:
    """a b_j + (1 - a) l_j, the running mean of losses; ``smoothing`` a in [0, 1), 0 is none."""
    new = losses("loss", loss)
    old = like(new, "before", before)
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing must lie in [0, 1), got {smoothing}")
    return smoothing * old + (1.0 - smoothing) * new
