"""The strategies that change shares: VersaTune's two, and two rivals by their published rules.

The rules are those of :mod:`versatune.mixing.formulas`; here stand the choices around them:
which loss counts, bounds on shares, what to say about it, when to stop.
"""

from abc import ABC
from typing import Literal

import numpy as np

from versatune.domains import choose
from versatune.errors import VersatuneError
from versatune.mixing import formulas, rivals
from versatune.mixing.config import (
    AdaptiveParams,
    DoremiParams,
    ExpandParams,
    FosterParams,
    OdmParams,
)
from versatune.mixing.interface import ROLLED_BACK, Context, RoundMetrics, Stop, Strategy
from versatune.mixing.shares import Array, bounded_shares

SAME = 1e-9
"""Shares closer than this are the same: rounding moves them so far."""

HARDLY = 0.001
"""Shares that move by less look the same in messages."""

NO_PROGRESS = "first measurement: there is no progress to go by yet"


class Adaptive(Strategy, ABC):
    """Shares that change, kept between a floor and a cap."""

    def __init__(self, params: AdaptiveParams, context: Context, start: Array) -> None:
        self.smoothing = params.smoothing
        self.forgetting_baseline = params.forgetting_baseline
        self._floor, self._cap = params.floor, params.cap
        try:
            start = bounded_shares(start, self._floor, self._cap)
        except ValueError as error:
            raise VersatuneError(f"strategy.floor and strategy.cap: {error}.") from error
        super().__init__(context, start)

    def _bounded(self, weights: Array) -> Array:
        return bounded_shares(weights, self._floor, self._cap)

    def _told(self, reason: str, old: Array, new: Array) -> str:
        """``reason``, and which share it moves most: another domain's than the reason's, often."""
        moved = int(np.argmax(np.abs(new - old)))
        if np.allclose(new, old, rtol=0, atol=SAME):
            return f"{reason}; no share moves"
        if abs(new[moved] - old[moved]) < HARDLY:
            return f"{reason}; no share moves by {HARDLY:g} or more"
        return (
            f"{reason}; the share of {self.context.domains[moved]} moves most "
            f"({old[moved]:.3f} to {new[moved]:.3f})"
        )


class Foster(Adaptive):
    """Algorithm 2: every domain grows by what it can still learn."""

    def __init__(self, params: FosterParams, context: Context, start: Array) -> None:
        super().__init__(params, context, start)
        self.potential_source = params.potential_source
        self._sigma = params.sigma

    def _next(self, now: RoundMetrics) -> tuple[Array, str, Stop | None]:
        weights, gamma = now.weights, now.gamma
        if np.isnan(gamma).any():
            return weights, NO_PROGRESS, None
        new = self._bounded(formulas.foster_update(weights, gamma, self._sigma))
        return new, self._told(self._why(gamma), weights, new), None

    def _why(self, gamma: Array) -> str:
        names = self.context.domains
        most, least = int(np.argmax(gamma)), int(np.argmin(gamma))
        if gamma[most] == 0:
            below = "fell" if self.potential_source == "progress" else "lies above its reference"
            return f"no held-out loss {below} (every gamma is 0)"
        if gamma[most] - gamma[least] <= SAME:
            return f"as much to learn in every domain (gamma {_shown(gamma[most])})"
        return (
            f"most to learn in {names[most]} (gamma {_shown(gamma[most])}), "
            f"least in {names[least]} ({_shown(gamma[least])})"
        )


def _shown(gamma: float) -> str:
    """Three places, or as many as a small value needs: 0.000 is said only of 0."""
    return f"{gamma:.3f}" if gamma == 0 or gamma >= 5e-4 else f"{gamma:.1g}"


class Expand(Adaptive):
    """Algorithm 3 with a guard: raise the target while the others are not forgotten.

    The guard looks at the mean rise of the other domains' losses above their lowest so far,
    whatever phi is measured against: small rises that go on add up only there. A round above the
    threshold counts unless the rise is smaller than the round before: then it is being made up for,
    as after the jolt that a fresh learning rate gives a trained model. The count is reset only when
    the rise is back within the threshold. The best round is the one with the lowest loss on the
    target among those within the threshold.
    """

    def __init__(self, params: ExpandParams, context: Context, start: Array) -> None:
        super().__init__(params, context, start)
        self.potential_source = params.potential_source
        self._params = params
        self._target = context.domains.index(
            choose(params.targets[0], context.domains, "strategy.target")
        )

    def _next(self, now: RoundMetrics) -> tuple[Array, str, Stop | None]:
        params, memory = self._params, self._memory
        weights, gamma, phi = now.weights, now.gamma, now.phi
        before, memory.rise = memory.rise, self._mean_rise(now.loss)
        if memory.rise <= params.guard.threshold:
            memory.strikes = 0
        elif memory.rise >= before:
            memory.strikes += 1
        if params.guard.action != "none" and memory.strikes >= params.guard.patience:
            return weights, *self._stopped(now.signals.round)
        if np.isnan(gamma[self._target]):
            return weights, NO_PROGRESS, None
        raised = formulas.expand_update(
            weights,
            gamma,
            phi,
            self._target,
            sigma=params.sigma,
            epsilon=params.epsilon,
            delta=params.delta,
            cap=params.target_cap,
            hold=params.when_closed == "hold",
        )
        is_open = formulas.expansion_gate(phi, gamma, self._target, params.epsilon)
        limit = params.epsilon * float(gamma[self._target])
        mean = formulas.mean_forgetting(phi, self._target)
        name = self.context.domains[self._target]
        reason = (
            f"gate {'open' if is_open else 'closed'}: mean forgetting of the others {mean:.4f} "
            f"{'<' if is_open else '>='} epsilon x gamma of {name} {limit:.4f}"
        )
        new = self._bounded(raised)
        return new, self._told(reason, weights, new), None

    def _stopped(self, round_: int) -> tuple[str, Stop]:
        guard, memory = self._params.guard, self._memory
        reason = (
            f"guard: the other domains lie {memory.rise:.4f} above their lowest losses on average "
            f"(limit {guard.threshold}) and did not fall in {memory.strikes} rounds; "
        )
        if guard.action == "rollback" and memory.best_round is not None:
            return reason + f"{ROLLED_BACK} {memory.best_round}, the best within it", "rollback"
        return reason + f"training ends after round {round_}", "stop"

    def _mean_rise(self, loss: Array) -> float:
        """Mean rise of the other domains' losses above their lowest before this round."""
        if self._memory.lowest is None:
            return 0.0
        rise = formulas.forgetting_degree(loss, self._memory.lowest)
        return formulas.mean_forgetting(rise, self._target)

    def _score(self, now: RoundMetrics) -> float | None:
        within = self._memory.rise <= self._params.guard.threshold
        return float(now.loss[self._target]) if within else None


class Doremi(Adaptive):
    """DoReMi's rule, applied to the model that is trained instead of to a proxy."""

    def __init__(self, params: DoremiParams, context: Context, start: Array) -> None:
        super().__init__(params, context, start)
        self._params = params

    def _next(self, now: RoundMetrics) -> tuple[Array, str, Stop | None]:
        measured = _published_signal(self._params.signal, now)
        # A domain that was not drawn has no training loss: its held-out loss stands in.
        measured = np.where(np.isnan(measured), now.loss, measured)
        assert self.context.reference_loss is not None
        excess = np.maximum(measured - self.context.reference_loss, 0.0)
        new = self._bounded(
            rivals.doremi_update(
                now.weights, excess, self._params.eta, self._params.share_smoothing
            )
        )
        top = int(np.argmax(excess))
        reason = (
            f"largest excess loss {excess[top]:.3f} in {self.context.domains[top]}"
            if excess[top] > 0
            else "no domain's loss lies above its reference"
        )
        return new, self._told(reason, now.weights, new), None


class Odm(Adaptive):
    """Online Data Mixing: an EXP3 bandit whose reward is the perplexity of a domain."""

    def __init__(self, params: OdmParams, context: Context, start: Array) -> None:
        super().__init__(params, context, start)
        self._params = params
        self._memory.reward = [0.0] * len(context.domains)

    def _next(self, now: RoundMetrics) -> tuple[Array, str, Stop | None]:
        memory = self._memory
        measured = _published_signal(self._params.signal, now)
        reward = rivals.odm_reward(memory.reward, measured, self._params.decay)
        memory.reward = reward.tolist()
        scaled = self._params.scale * reward
        new = self._bounded(rivals.odm_update(scaled, max(now.signals.step, 1)))
        top = int(np.argmax(reward))
        reason = f"largest reward {reward[top]:.2f} in {self.context.domains[top]}"
        return new, self._told(reason, now.weights, new), None


def _published_signal(kind: Literal["train", "validation"], now: RoundMetrics) -> Array:
    if kind == "train" and now.signals.train_loss is not None:
        return np.asarray(now.signals.train_loss, dtype=np.float64)
    return now.loss
