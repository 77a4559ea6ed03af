"""The update rules of DoReMi and Online Data Mixing, as their papers give them.

Conventions and errors as in :mod:`versatune.mixing.formulas`.
"""

import numpy as np
import numpy.typing as npt

from versatune.mixing.shares import Array, like, normalised, not_negative, shares, vector


def doremi_update(
    weights: npt.ArrayLike, excess: npt.ArrayLike, eta: float, smoothing: float
) -> Array:
    """w_j exp(eta lambda_j), normalised, then (1 - c) w + c / k.

    ``excess`` lambda_j = max(l_j - r_j, 0) in nats per token, ``eta`` >= 0, ``smoothing`` c in
    [0, 1]. Source: DoReMi (arXiv 2305.10429), Algorithm 1, which clips each token's excess
    before the mean; a round gives means.
    """
    old = shares(weights)
    lam = like(old, "excess", excess)
    if (lam < 0).any():
        raise ValueError(f"excess must not be negative, got {lam.tolist()}")
    not_negative("eta", eta)
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing must lie in [0, 1], got {smoothing}")
    raised = normalised(old * np.exp(eta * (lam - lam.max())))
    return (1.0 - smoothing) * raised + smoothing / old.size


def odm_reward(reward: npt.ArrayLike, loss: npt.ArrayLike, decay: float = 0.9) -> Array:
    """R_j = a R_j + (1 - a) exp(loss_j); a NaN loss (domain not seen) leaves R_j as it is.

    ``decay`` a in [0, 1]. Source: Online Data Mixing (arXiv 2312.02406), perplexity as reward.
    Nothing is divided by the domain's share, as a bandit must that sees one domain at a time: a
    round sees every domain it drew.
    """
    old = vector("reward", reward)
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
    """p_j = (1 - k eps_t) softmax(eps_{t-1} R)_j + eps_t, t >= 1 the optimiser step.

    Source: Online Data Mixing (arXiv 2312.02406), after EXP3.
    """
    scores = vector("reward", reward)
    if t < 1:
        raise ValueError(f"t must be at least 1, got {t}")
    k = scores.size
    before, now = odm_exploration(t - 1, k), odm_exploration(t, k)
    chosen = normalised(np.exp(before * (scores - scores.max())))
    return normalised((1.0 - k * now) * chosen + now)
