"""The strategies that forecast: ``mixing_law``, and ``expand`` under constraints.

Both fit a :mod:`versatune.mixing.law` to what the rounds did and what runs before the training
did, and go part of the way to the shares that :mod:`versatune.mixing.lookahead` finds best.
"""

from dataclasses import replace

import numpy as np

from versatune.domains import choose
from versatune.errors import VersatuneError
from versatune.mixing.adaptive import HARDLY, SAME, Adaptive
from versatune.mixing.config import ExpandParams, LawParams, MixingLawParams, StrategyParams
from versatune.mixing.interface import Context, RoundMetrics, Signals, Stop
from versatune.mixing.law import Law
from versatune.mixing.law_fit import fit
from versatune.mixing.lookahead import Bounds, Outlook, best_shares, protective_shares
from versatune.mixing.repeats import Supply
from versatune.mixing.shares import Array, normalised
from versatune.mixing.traces import Trace

NO_STDERR = "no standard errors of the changes: noise can't be told from signal"
TRIES = "the next round tries shares around these"
EXPLORING_ROUNDS = 2

MOST_DOMAINS = 100
"""The law is fitted domain by domain after each round, which takes a part of a second each."""


def learns_effects(params: StrategyParams) -> bool:
    """Whether a strategy fits a law to what each round did."""
    constrained = isinstance(params, ExpandParams) and params.rule == "constrained"
    return constrained or isinstance(params, MixingLawParams)


def too_many_domains(strategy: str, n: int) -> str:
    """What to say of more than :data:`MOST_DOMAINS` domains."""
    return (
        f"strategy {strategy!r} fits a law for each domain after each round, and {n} domains are "
        f"more than the {MOST_DOMAINS} it can take: join some, or choose foster, doremi or odm"
    )


class _Forecasting(Adaptive):
    """The common part: what a round did is recorded, and the law fitted to all records."""

    def __init__(
        self, params: MixingLawParams | ExpandParams, context: Context, start: Array, stay: Array
    ) -> None:
        """``stay``: the shares to stay at without signal; ``start``: the first round's, if so."""
        if len(context.domains) > MOST_DOMAINS:
            raise VersatuneError(f"{too_many_domains(params.name, len(context.domains))}.")
        super().__init__(params, context, start)
        self._law: LawParams = params.law
        self._explore = params.explore
        # Of ln(l / l(0)), now: how far held-out rows may stand for their domain.
        self._doubt = np.zeros(len(context.domains))
        self._supply: Supply | None = None
        self._stay = self._bounds().keep(stay)
        self._start = self._bounds().keep(start)
        if context.passes is not None:
            alone = np.asarray(context.passes, dtype=np.float64)
            self._supply = Supply(np.zeros(alone.size), alone)
        if context.traces and context.base_loss is not None and context.learning:
            base = np.asarray(context.base_loss, dtype=np.float64)
            law = self._fitted(Trace.begin(base), context.learning)
            outlook = self._outlook(law, context.learning)
            self._start = self._best(outlook)
        elif self._explores(0):
            self._start = self._explored(self._start, 0)

    def _next(self, now: RoundMetrics) -> tuple[Array, str, Stop | None]:
        signals, memory = now.signals, self._memory
        unmoved = now.weights if self.context.traces else self._stay
        if signals.since_base_stderr is None:
            return unmoved, NO_STDERR, None
        explores = self._explores(memory.updates)
        if memory.first is None:
            new = self._explored(unmoved, memory.updates) if explores else unmoved
            said = "first measurement: no change to learn from yet"
            return new, f"{said}; {TRIES}" if explores else said, None
        learning = 1.0 if signals.learning is None else signals.learning
        trace = self._trace().then(
            now.weights,
            learning,
            signals.rate,
            signals.passes,
            now.loss,
            np.asarray(signals.since_base_stderr, dtype=np.float64),
        )
        memory.trace = trace.to_json()
        self._doubt = self._at_the_end(signals)
        left = learning if signals.learning_left is None else signals.learning_left
        if left <= 0:
            return now.weights, "nothing is left to steer", None
        whole = self.context.learning or learning + left
        outlook = self._outlook(self._fitted(trace, whole), whole)
        best = self._best(outlook)
        if np.allclose(best, self._stay, rtol=0, atol=SAME):
            best = self._stay
        new = (
            best
            if best is self._stay
            else self._bounds().keep(_part_way(now.weights, best, self._law.move))
        )
        new = self._explored(new, memory.updates) if explores else new
        reason = self._reason(outlook, best, new)
        return new, f"{reason}; {TRIES}" if explores else reason, None

    def _explores(self, number: int) -> bool:
        """Whether round ``number``, from 0 on, tries shares: a later one must learn from it."""
        rounds = self.context.rounds
        told = bool(self.context.traces) or (rounds is not None and number + 1 >= rounds)
        some = self._explore > 0 and len(self.context.domains) > 1
        return some and number < EXPLORING_ROUNDS and not told

    def _trace(self) -> Trace:
        """What was recorded so far."""
        if self._memory.trace is not None:
            return Trace.from_json(self._memory.trace)
        assert self._memory.first is not None
        return Trace.begin(np.array(self._memory.first))

    def _at_the_end(self, signals: Signals) -> Array:
        """The standard errors since the base as they will be when training ends.

        Rows that part from their domain go on doing so: they grow with the learning amount.
        """
        error = np.asarray(signals.since_base_stderr, dtype=np.float64)
        whole, left = self.context.learning, signals.learning_left
        if not whole or left is None or not 0 < left < whole:
            return error
        return error * (whole / (whole - left))

    def _fitted(self, trace: Trace, learning: float) -> Law:
        """The law by all runs: those before the training, and the training so far."""
        traces = [*self.context.traces, trace]
        return fit(traces, trace.losses[0], self._law.misfit, learning)

    def _outlook(self, law: Law, learning: float) -> Outlook:
        """Of a whole training, ``learning``, on one mix.

        Not of what is left of this one: shares that make up for the rounds before overshoot, since
        what was learnt early and is no longer seen is lost again, which the law does not know.
        """
        return Outlook(
            law=law,
            learning=learning,
            objective=self._objective().surrogate,
            anchor=self._stay,
            caution=self._law.caution,
            supply=self._supply,
        )

    def _best(self, outlook: Outlook) -> Array:
        return best_shares(outlook, self._bounds())

    def _bounds(self) -> Bounds:
        return Bounds(self._floor, self._cap)

    def _explored(self, weights: Array, number: int) -> Array:
        """``weights`` with every domain a known part more or less, by the bits of its number.

        Of two domains, whose second bits are alike, the other way round the second time.
        """
        sign = 1 - 2 * ((np.arange(weights.size) >> number) & 1)
        if weights.size == 2 and number:
            sign = np.array([-1, 1])
        return self._bounds().keep(normalised(weights * np.exp(self._explore * sign)))

    def _reason(self, outlook: Outlook, best: Array, _new: Array) -> str:
        objective = self._objective()
        stay, then = (
            float(np.mean([objective.value(end) for end in outlook.ends(weights)]))
            for weights in (self._stay, best)
        )
        if np.array_equal(best, self._stay):
            return f"forecast {objective.told(stay)} at the end; no shares are clearly better"
        up = self.context.domains[int(np.argmax(best - self._stay))]
        gain = objective.told(stay - then, change=True)
        better = f"{gain} better" if round(stay - then, 4) > 0 else "hardly better"
        return f"forecast {objective.told(then)} at the end, {better} with more {up}"


class MixingLaw(_Forecasting):
    """The shares with the best forecast of the declared objective.

    Without runs before the training it goes towards shares within a factor of ``reach`` of those
    to stay at: the first rounds tell little of shares that they did not have, and less of what is
    forgotten with them. What it explores comes on top.
    """

    def __init__(self, params: MixingLawParams, context: Context, stay: Array) -> None:
        self._reach = params.reach
        super().__init__(params, context, stay, stay)

    def _best(self, outlook: Outlook) -> Array:
        bounds = self._bounds()
        if not self.context.traces:
            least = np.maximum(self._stay / self._reach, self._floor)
            most = np.minimum(self._stay * self._reach, self._cap)
            bounds = Bounds(tuple(least.tolist()), tuple(most.tolist()))
        return best_shares(outlook, bounds)


class Constrained(_Forecasting):
    """The targets' lowest forecast loss, each other domain's forecast within its tolerance.

    A forecast stays within them by ``margin`` standard errors when training ends, and by a part of
    that before, as large as what is trained: what goes wrong early can still be made up for.
    The others divide what the targets leave alike at first, where that keeps the limits, and less
    so the more the training itself has told: short runs tell little of how few rows keep a domain.
    Where no shares keep all of them, the least violation (:func:`.lookahead.protective_shares`),
    and the targets' share does not rise. The best round is the one with the lowest loss on the
    targets among those in which no other domain is beyond its tolerance for certain.
    """

    def __init__(self, params: ExpandParams, context: Context, mix: Array) -> None:
        """``mix``: how the others share what the targets leave, and the targets their part."""
        self._targets = tuple(
            context.domains.index(choose(name, context.domains, "strategy.target"))
            for name in params.targets
        )
        self._share, self._margin = params.target_share, params.margin
        self._is_target = np.zeros(len(context.domains), dtype=bool)
        self._is_target[list(self._targets)] = True
        self._lower_bound, self._upper_bound = max(params.floor, self._share.floor), params.cap
        self._alike = _least_parts(mix, ~self._is_target)
        start = np.maximum(mix, 1e-3)
        for part, size in (
            (self._is_target, self._share.start),
            (~self._is_target, 1 - self._share.start),
        ):
            if part.any():
                start[part] *= size / start[part].sum()
        # The targets' share now, and the highest next one: no higher where limits can't be met.
        self._held, self._most = self._share.start, self._share.most
        self._done = 0.0  # The part of the learning amount that is spent.
        super().__init__(params, context, normalised(start), normalised(start))

    def _bounds(self) -> Bounds:
        least = self._share.least
        return Bounds(self._lower_bound, self._upper_bound, self._targets, least, self._most)

    def _next(self, now: RoundMetrics) -> tuple[Array, str, Stop | None]:
        self._held, self._most = float(now.weights[self._is_target].sum()), self._share.most
        left, whole = now.signals.learning_left, self.context.learning
        self._done = 1.0 if left is None or not whole else max(1 - left / whole, 0.0)
        return super()._next(now)

    def _best(self, outlook: Outlook) -> Array:
        best = best_shares(outlook, replace(self._bounds(), parts=self._parts()))
        if self._is_target.all() or outlook.meets_limits(best):
            return best
        safe = protective_shares(outlook, self._bounds())
        if outlook.meets_limits(safe):  # The search missed them: once more from where they are met.
            best = best_shares(outlook, self._bounds(), safe)
            return best if outlook.meets_limits(best) else safe
        self._most = min(max(self._held, self._share.least), self._share.most)
        return protective_shares(outlook, self._bounds())

    def _parts(self) -> tuple[float, ...]:
        """What each other domain has at least of what the targets leave, now."""
        kept = 1 - (1 - self._share.others) * self._done
        return tuple((kept * self._alike).tolist())

    def _outlook(self, law: Law, learning: float) -> Outlook:
        objective = self._objective()
        margin = self._margin * self._done
        limits = objective.limits(self._doubt) - margin * self._doubt * objective.first
        counted = self._is_target / max(self._is_target.sum(), 1) / objective.first
        return replace(
            super()._outlook(law, learning),
            objective=lambda losses: (losses @ counted, np.broadcast_to(counted, losses.shape)),
            limits=np.where(self._is_target, np.inf, limits),
            caution_limits=margin,
        )

    def _reason(self, outlook: Outlook, best: Array, new: Array) -> str:
        objective = self._objective()
        over = objective.excess(outlook.forecast(best)[0], self._doubt)
        excess = np.where(self._is_target, -np.inf, over / objective.first)
        tightest, names = int(np.argmax(excess)), self.context.domains
        now, then = new[self._is_target].sum(), best[self._is_target].sum()
        said = f"targets at {now:.3f} of the shares"
        if abs(now - then) >= HARDLY:
            said += f", on the way to {then:.3f}"
        if not np.isfinite(excess[tightest]):
            return said
        if not outlook.meets_limits(best):
            margin = "" if excess[tightest] > 0 else " with their margin"
            said = f"the limits can't all be met{margin}; {said}"
        return (
            f"{said}; {names[tightest]} is forecast to end {100 * excess[tightest]:+.1f} % "
            "against its tolerance, the tightest"
        )

    def _score(self, now: RoundMetrics) -> float | None:
        objective, stderr = self._objective(), now.signals.since_base_stderr
        error = np.zeros_like(now.loss) if stderr is None else np.asarray(stderr)
        broken = objective.broken(now.loss, error) & ~self._is_target
        return None if broken.any() else float((now.loss / objective.first)[self._is_target].mean())


def _least_parts(mix: Array, others: Array) -> Array:
    """Of what the targets leave, an equal part for each other domain, or its part in ``mix`` where
    that is less: of few rows an equal part would be many passes."""
    total, n = float(mix[others].sum()), int(others.sum())
    if total <= 0:
        return np.zeros(mix.size)
    return np.where(others, np.minimum(mix / total, 1 / n), 0.0)


def _part_way(old: Array, new: Array, part: float) -> Array:
    """old^(1 - part) new^part, normalised: so far in the logarithms of shares."""
    tiny = 1e-9
    return normalised(np.maximum(old, tiny) ** (1 - part) * np.maximum(new, tiny) ** part)
