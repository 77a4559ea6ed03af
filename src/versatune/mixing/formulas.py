"""The formulas of VersaTune (arXiv 2411.11266) and of its rivals, one pure function each.

Arrays have shape (k,), one entry a domain; losses are held-out nats per token unless said
otherwise, shares sum to 1. Nothing is changed in place. Every function raises ValueError on a
wrong shape, NaN, an infinite value, a loss that is not positive, or shares that are not shares:
these are programming errors, since user input was validated before.
"""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

SUM_TOLERANCE = 1e-6
"""How far from 1 the sum of shares may be before it counts as a mistake."""


def shares(weights: npt.ArrayLike) -> Array:
    """``weights`` checked to be shares: shape (k,), none negative, sum 1 (within 1e-6).

    Returned rescaled to sum to 1 as exactly as floating point can.
    """
    values = _vector("weights", weights)
    if (values < 0).any():
        raise ValueError(f"weights must not be negative, got {values.tolist()}")
    total = float(values.sum())
    if abs(total - 1) > SUM_TOLERANCE:
        raise ValueError(f"weights must sum to 1, got {total:.8g}")
    return values / total


def learnable_potential(loss: npt.ArrayLike, reference: npt.ArrayLike) -> Array:
    """gamma_j = max((l_j - r_j) / l_j, 0), the part of the loss that can still be learnt.

    ``loss`` l_j > 0 is the current model's, ``reference`` r_j > 0 what a model trained on the
    domain alone reaches, both held-out and under one tokenizer. Range [0, 1), free of the
    losses' scale. A reference of 0 is refused: only training rows can be memorised so far.
    Source: paper, Algorithm 2.
    """
    current = _losses("loss", loss)
    goal = _like(current, "reference", reference)
    _losses("reference", goal)
    return np.maximum((current - goal) / current, 0.0)


def recent_progress(loss: npt.ArrayLike, previous: npt.ArrayLike) -> Array:
    """max((l_j(t-1) - l_j(t)) / l_j(t-1), 0): gamma without references, in [0, 1).

    How much the held-out loss fell since the last measurement, as a part of it. This project's,
    not the paper's: a domain that still falls fast still has something to learn.
    """
    current = _losses("loss", loss)
    before = _like(current, "previous", previous)
    _losses("previous", before)
    return np.maximum((before - current) / before, 0.0)


def foster_update(weights: npt.ArrayLike, potential: npt.ArrayLike, sigma: float) -> Array:
    """P_j(t) = P_j(t-1) (1 + sigma gamma_j), divided by the sum over domains.

    ``sigma`` >= 0; 0, or the same gamma everywhere, leaves the shares as they are. A positive
    share stays positive. Source: paper, Algorithm 2 (as recalled).
    """
    old = shares(weights)
    gamma = _like(old, "potential", potential)
    if (gamma < 0).any():
        raise ValueError(f"potential must not be negative, got {gamma.tolist()}")
    _not_negative("sigma", sigma)
    return _normalised(old * (1.0 + sigma * gamma))


def forgetting_degree(loss: npt.ArrayLike, before: npt.ArrayLike) -> Array:
    """phi_j = max((l_j(t) - b_j) / b_j, 0), how much the loss has risen, as a part of b_j.

    ``before`` b_j > 0 is the previous measurement in the paper (Algorithm 3), or the lowest so
    far. Range [0, inf); free of the losses' scale.
    """
    current = _losses("loss", loss)
    base = _like(current, "before", before)
    _losses("before", base)
    return np.maximum((current - base) / base, 0.0)


def mean_forgetting(forgetting: npt.ArrayLike, target: int) -> float:
    """Mean of phi_j over the domains other than ``target``; 0 when it is the only one."""
    phi = _vector("forgetting", forgetting)
    _index(target, phi)
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
    phi = _vector("forgetting", forgetting)
    gamma = _like(phi, "potential", potential)
    _index(target, phi)
    _not_negative("epsilon", epsilon)
    return mean_forgetting(phi, target) < epsilon * float(gamma[target])


def raise_target(weights: npt.ArrayLike, target: int, delta: float, cap: float = 1.0) -> Array:
    """P_e + delta, at most ``cap``; the other shares are scaled to fill the rest.

    ``delta`` >= 0, ``cap`` in (0, 1]; a target that starts above the cap stays where it is.
    When the others have no share at all, the shares are returned unchanged.
    Source: paper, Algorithm 3, gate open (as recalled); the cap is this project's.
    """
    old = shares(weights)
    _index(target, old)
    _not_negative("delta", delta)
    if not 0 < cap <= 1:
        raise ValueError(f"cap must lie in (0, 1], got {cap}")
    raised = max(float(old[target]), min(float(old[target]) + delta, cap))
    rest = 1.0 - float(old[target])
    if rest <= 0:
        return old
    new = old * ((1.0 - raised) / rest)
    new[target] = raised
    return _normalised(new)


def protect_others(
    weights: npt.ArrayLike, forgetting: npt.ArrayLike, target: int, sigma: float, *, hold: bool
) -> Array:
    """P_j (1 + sigma phi_j) for j != e, rescaled: the gate is closed, what is lost gets more.

    With ``hold`` the target keeps its share and the others share the rest; without it all
    shares are divided by their sum, so that the target gives way to what is being forgotten.
    Source: paper, Algorithm 3, gate closed (as recalled, weakly: hence both readings).
    """
    old = shares(weights)
    phi = _like(old, "forgetting", forgetting)
    if (phi < 0).any():
        raise ValueError(f"forgetting must not be negative, got {phi.tolist()}")
    _index(target, old)
    _not_negative("sigma", sigma)
    new = old * (1.0 + sigma * phi)
    new[target] = old[target]
    others = float(new.sum()) - float(new[target])
    if hold and others > 0:
        scale = (1.0 - float(old[target])) / others
        new = new * scale
        new[target] = old[target]
    return _normalised(new)


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
    return _normalised(1.0 - known)


def temperature_proportional(counts: npt.ArrayLike, temperature: float = 1.0) -> Array:
    """w_j proportional to n_j^(1/T); T = 1 is the stratified mix, T -> inf uniform.

    ``counts`` n_j >= 0, not all zero, in any unit; a domain without data gets 0.
    ``temperature`` > 0. Source: common in multilingual training (mT5: T = 1/alpha).
    """
    n = _vector("counts", counts)
    if (n < 0).any() or not n.any():
        raise ValueError(f"counts must not be negative nor all zero, got {n.tolist()}")
    if not temperature > 0 or not np.isfinite(temperature):
        raise ValueError(f"temperature must be positive, got {temperature}")
    return _normalised((n / n.max()) ** (1.0 / temperature))


def doremi_update(
    weights: npt.ArrayLike, excess: npt.ArrayLike, eta: float, smoothing: float
) -> Array:
    """w_j exp(eta lambda_j), normalised, then (1 - c) w + c / k.

    ``excess`` lambda_j = max(l_j - r_j, 0) in nats per token, ``eta`` >= 0, ``smoothing`` c in
    [0, 1]. Source: DoReMi (arXiv 2305.10429), Algorithm 1.
    """
    old = shares(weights)
    lam = _like(old, "excess", excess)
    if (lam < 0).any():
        raise ValueError(f"excess must not be negative, got {lam.tolist()}")
    _not_negative("eta", eta)
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing must lie in [0, 1], got {smoothing}")
    raised = _normalised(old * np.exp(eta * (lam - lam.max())))
    return (1.0 - smoothing) * raised + smoothing / old.size


def odm_reward(reward: npt.ArrayLike, loss: npt.ArrayLike, decay: float = 0.9) -> Array:
    """R_j = a R_j + (1 - a) exp(loss_j); a NaN loss (domain not seen) leaves R_j as it is.

    ``decay`` a in [0, 1]. Source: Online Data Mixing (arXiv 2312.02406), perplexity as reward.
    """
    old = _vector("reward", reward)
    seen = np.asarray(loss, dtype=np.float64)
    if seen.shape != old.shape:
        raise ValueError(f"loss has shape {seen.shape}, expected {old.shape}")
    if not 0 <= decay <= 1:
        raise ValueError(f"decay must lie in [0, 1], got {decay}")
    if np.isinf(seen).any():
        raise ValueError(f"loss must be finite, got {seen.tolist()}")
    # Perplexities beyond exp(30) are a broken model; the limit keeps the reward finite.
    return np.where(np.isnan(seen), old, decay * old + (1 - decay) * np.exp(np.minimum(seen, 30.0)))


def odm_exploration(t: int, k: int) -> float:
    """eps_t = min(1/k, sqrt(ln k / (k t))) for t >= 1; 1/k at t = 0. Source: as odm_reward."""
    if t < 0 or k < 1:
        raise ValueError(f"t must be >= 0 and k >= 1, got {t} and {k}")
    return 1.0 / k if t == 0 else min(1.0 / k, float(np.sqrt(np.log(k) / (k * t))))


def odm_update(reward: npt.ArrayLike, t: int) -> Array:
    """p_j = (1 - k eps_t) softmax(eps_{t-1} R)_j + eps_t, t >= 1 the number of updates so far.

    Source: Online Data Mixing (arXiv 2312.02406), after EXP3.
    """
    scores = _vector("reward", reward)
    if t < 1:
        raise ValueError(f"t must be at least 1, got {t}")
    k = scores.size
    before, now = odm_exploration(t - 1, k), odm_exploration(t, k)
    chosen = _normalised(np.exp(before * (scores - scores.max())))
    return _normalised((1.0 - k * now) * chosen + now)


def bounded_shares(weights: npt.ArrayLike, floor: npt.ArrayLike, cap: npt.ArrayLike) -> Array:
    """The shares clip(c w_j, floor_j, cap_j) with the one c that makes them sum to 1.

    This is the projection onto {floor <= x <= cap, sum x = 1} in the sense of the
    Kullback-Leibler divergence: shares inside their bounds keep their ratios, and no share
    becomes 0 that was not. ``floor`` and ``cap``: numbers or shape (k,), 0 <= floor <= cap <= 1.
    Exact up to rounding: the breakpoints are sorted, no iteration.
    Raises ValueError when the floors sum to more than 1, or what the caps allow to less.
    """
    old = shares(weights)
    low = np.broadcast_to(np.asarray(floor, dtype=np.float64), old.shape)
    high = np.broadcast_to(np.asarray(cap, dtype=np.float64), old.shape)
    if not ((low >= 0) & (low <= high) & (high <= 1)).all():
        raise ValueError("bounds must hold 0 <= floor <= cap <= 1")
    positive = old > 0
    reachable = float(np.where(positive, high, low).sum())
    if low.sum() > 1 + SUM_TOLERANCE or reachable < 1 - SUM_TOLERANCE:
        raise ValueError(
            f"no shares fit the bounds: floors sum to {low.sum():.6g}, caps to {reachable:.6g}"
        )
    w, lo, hi = old[positive], low[positive], high[positive]
    wanted = 1.0 - float(low[~positive].sum())
    # sum_j clip(c w_j, lo_j, hi_j) is piecewise linear and rising in c, with a bend at each
    # lo_j / w_j (slope + w_j) and hi_j / w_j (slope - w_j).
    bends = np.concatenate([lo / w, hi / w])
    order = np.argsort(bends, kind="stable")
    slopes = np.cumsum(np.concatenate([w, -w])[order])
    at = float(lo.sum()) + np.concatenate([[0.0], np.cumsum(slopes[:-1] * np.diff(bends[order]))])
    i = max(int(np.searchsorted(at, wanted, side="right")) - 1, 0)
    c = bends[order][i] + (wanted - at[i]) / slopes[i] if slopes[i] > 1e-15 else bends[order][i]
    result = low.copy()
    result[positive] = np.clip(c * w, lo, hi)
    return result / result.sum()


def smoothed(loss: npt.ArrayLike, before: npt.ArrayLike, smoothing: float) -> Array:
    """a b_j + (1 - a) l_j, the running mean of losses; ``smoothing`` a in [0, 1), 0 is none."""
    new = _losses("loss", loss)
    old = _like(new, "before", before)
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing must lie in [0, 1), got {smoothing}")
    return smoothing * old + (1.0 - smoothing) * new


def _vector(name: str, values: npt.ArrayLike) -> Array:
    array = np.array(values, dtype=np.float64)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"{name} must have shape (k,), got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {array.tolist()}")
    return array


def _like(other: Array, name: str, values: npt.ArrayLike) -> Array:
    array = _vector(name, values)
    if array.shape != other.shape:
        raise ValueError(f"{name} has shape {array.shape}, expected {other.shape}")
    return array


def _losses(name: str, values: npt.ArrayLike) -> Array:
    array = _vector(name, values)
    if (array <= 0).any():
        raise ValueError(f"{name} must be positive, got {array.tolist()}")
    return array


def _normalised(values: Array) -> Array:
    return values / values.sum()


def _index(target: int, like: Array) -> None:
    if not 0 <= target < like.size:
        raise ValueError(f"target must be a domain's index below {like.size}, got {target}")


def _not_negative(name: str, value: float) -> None:
    if not (np.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be >= 0, got {value}")
