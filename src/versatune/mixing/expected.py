"""The shares that a strategy is expected to take: its own code, simulated with a mixing law."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from versatune.mixing.config import StrategyParams
from versatune.mixing.forecast import Noise, Path, Simulation
from versatune.mixing.interface import Context, Signals
from versatune.mixing.law import Law
from versatune.mixing.shares import Array
from versatune.mixing.strategies import make_strategy


class Expected(NamedTuple):
    """What a strategy is expected to do."""

    trained: Path
    """The shares of each round that is trained, and its learning amount."""
    kept: int
    """How many of these rounds the model has behind it that is kept; less than all of them where
    training goes back to its best round."""

    @property
    def path(self) -> Path:
        """Of the model that is kept."""
        return self.trained[: self.kept]


def expected_path(
    params: StrategyParams,
    context: Context,
    law: Law,
    learning: Array,
    rates: Array,
    noise: Noise,
    ends: Sequence[int],
) -> Expected:
    """The shares of each round, and its learning amount, if losses go as ``law`` says.

    ``context`` holds what the strategy would know in training, ``base_loss`` among it. ``learning``
    (rounds,) is what each round spends, ``rates`` (rounds,) the learning rate over its peak at its
    end, ``ends`` (rounds,) the steps until then. A strategy that stops spends less. Raises
    VersatuneError when ``context`` lacks what the strategy needs.
    """
    assert context.base_loss is not None
    strategy = make_strategy(params, context)
    first = np.asarray(context.base_loss, dtype=np.float64)
    simulation = Simulation(law.likeliest(), float(learning.sum()), context.passes)
    weights, path, best = strategy.initial(), list[tuple[Array, float]](), 0
    for number, part in enumerate(learning.tolist(), start=1):
        path.append((weights, part))
        simulation.go(weights, part)
        losses = simulation.losses(float(rates[number - 1]))[0]
        decision = strategy.update(
            Signals(
                number,
                ends[number - 1],
                weights,
                losses,
                train_loss=losses,
                since_base_stderr=noise.error(losses, first),
                learning=part,
                rate=float(rates[number - 1]),
                learning_left=float(learning[number:].sum()),
                passes=simulation.seen,
            )
        )
        best = number if decision.best else best
        if decision.stop is not None:
            return Expected(path, best if decision.stop == "rollback" else len(path))
        weights = decision.weights
    return Expected(path, len(path))


def over_steps(path: Path, steps: Sequence[int]) -> Array:
    """The mean share of each domain (k,) over the steps of a path; ``steps``: of each round.

    Rows are drawn by steps, however much is learnt from them. A path that ended early has its own
    rounds alone.
    """
    shares = np.array([weights for weights, _ in path])
    return np.asarray(np.average(shares, axis=0, weights=steps[: len(path)]))
