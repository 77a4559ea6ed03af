"""Worlds in which a mixture can be steered: what a share does to every domain's held-out loss.

These were written down before any rule was tuned on them (``pretrained`` after that, and no rule
was tuned on it). Nothing here is of the form that the strategies assume: a loss has two parts (a
format that all domains teach, and what a domain's own rows teach), forgetting goes pair by pair,
repeated rows teach less and then harm, and measurements are of some rows only, whose losses move
differently from the domain's.

    L_i = e_i + F_i exp(-g_i) + A_i (1 + z_i)^-beta_i + O_i
    dg_i = c_i (x_i + share_format sum_{j != i} x_j) dE              format
    dz_i = (rate_i x_i fresh_i + sum_{j != i} T_ij rate_i x_j) dE    what is learnt, with transfer T
           - z_i sum_{j != i} N_ij x_j dE                            and forgotten
    dO_i = overfit (x_i dE) where a domain's rows have been seen more than ``patience`` times

E is the learning rate over its peak summed over steps, as parts of the training (1 = all of a
training at constant rate). Numbers are matched to the embedded sample: losses of 3.5 to 4 nats
that fall to 1.2 to 1.8 from the raw base, elasticities .25 to .41 with standard deviation .21 of
their logarithms, and for the adapted base the table of static shares (others at 0, .02, .06, .1,
.134, .173 each: -.555, -.176, +.074, +.215, +.308, +.376 nats).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

K = 6
SUBSTEPS = 8


@dataclass(frozen=True)
class World:
    """One world; arrays have shape (k,) or (k, k)."""

    floor: Array
    format: Array
    format_rate: Array
    format_shared: float
    amount: Array
    beta: Array
    rate: Array
    transfer: Array
    forgets: Array
    z0: Array
    """What the base model has learnt of each domain already."""
    passes: Array
    """Passes over a domain's rows if it had all of the training."""
    patience: float
    overfit: float
    row_noise: float
    """Standard deviation of a domain's held-out level on its rows, as a part of the loss."""
    change_noise: float
    """The same of a loss change over the whole training; what is left in paired differences."""
    sizes: Array
    """Parts of the rows by domain."""

    def begin(self, n: int) -> "State":
        """``n`` trainings from the base model."""
        shape = (n, self.floor.size)
        return State(np.zeros(shape), np.tile(self.z0, (n, 1)), np.zeros(shape), np.zeros(shape))

    def loss(self, state: "State") -> Array:
        """Shape (n, k): the domains' true held-out losses."""
        return (
            self.floor
            + self.format * np.exp(-state.g)
            + self.amount * (1 + state.z) ** -self.beta
            + state.overfit
        )

    def train(self, state: "State", x: Array, learning: float) -> "State":
        """``learning`` of E on shares ``x`` (n, k)."""
        own, dt = self.rate, learning / SUBSTEPS
        g, z, seen, over = state.g, state.z, state.seen, state.overfit
        off = 1.0 - np.eye(self.floor.size)
        for _ in range(SUBSTEPS):
            fresh = np.exp(-np.maximum(seen - 1.0, 0.0) / self.patience)
            others = x.sum(1, keepdims=True) - x
            g = g + dt * self.format_rate * (x + self.format_shared * others)
            gain = own * (x * fresh + x @ (self.transfer * off).T)
            lost = x @ (self.forgets * off).T
            z = np.maximum(z * np.exp(-dt * lost) + dt * gain, 0.0)
            over = over + dt * self.overfit * x * (seen > self.patience)
            seen = seen + dt * x * self.passes
        return State(g, z, seen, over)


@dataclass(frozen=True)
class State:
    """Where trainings stand, each array of shape (n, k)."""

    g: Array
    z: Array
    seen: Array
    overfit: Array


def _raw(rng: np.random.Generator, spread: float) -> World:
    """The sample's raw base: everything is to be learnt, format first."""
    k = K
    amount = 1.9 * np.exp(spread * rng.standard_normal(k) - spread**2 / 2)
    return World(
        floor=rng.uniform(0.35, 0.6, k),
        format=rng.uniform(1.2, 1.8, k),
        format_rate=rng.uniform(9.0, 14.0, k),
        format_shared=0.7,
        amount=amount,
        beta=rng.uniform(0.45, 0.6, k),
        rate=60.0 * np.exp(0.15 * rng.standard_normal(k)),
        transfer=rng.uniform(0.0, 0.06, (k, k)),
        forgets=rng.uniform(0.2, 0.8, (k, k)),
        z0=np.zeros(k),
        passes=np.full(k, 6.0),
        patience=8.0,
        overfit=0.0,
        row_noise=0.10,
        change_noise=0.06,
        sizes=np.full(k, 1 / k),
    )


def sample(rng: np.random.Generator) -> World:
    """Like the embedded sample: marginal gains nearly alike, next to nothing to win."""
    return _raw(rng, 0.18)


def wide(rng: np.random.Generator) -> World:
    """Marginal gains that differ (standard deviation of their logarithms about 1)."""
    return _raw(rng, 1.0)


def steep_flat(rng: np.random.Generator) -> World:
    """Half of the domains learn fast and are done, half learn slowly all along."""
    world = _raw(rng, 0.3)
    steep = rng.permutation(np.arange(K) < K // 2)
    return replace(
        world,
        beta=np.where(steep, 1.3, 0.25) * rng.uniform(0.9, 1.1, K),
        rate=world.rate * np.where(steep, 2.0, 0.7),
    )


def sizes(rng: np.random.Generator) -> World:
    """Sizes 20 to 1 and several passes over the small ones, which are memorised."""
    parts = rng.permutation(np.geomspace(1.0, 20.0, K))
    world = _raw(rng, 0.3)
    passes = 3.0 / (parts / parts.sum()) / 2
    return replace(world, sizes=parts / parts.sum(), passes=passes, patience=4.0, overfit=1.5)


def known(rng: np.random.Generator) -> World:
    """Two domains that the base model knows already."""
    world = _raw(rng, 0.3)
    knows = rng.permutation(np.arange(K) < 2)
    return replace(
        world,
        z0=np.where(knows, 40.0, 0.0),
        format=world.format * np.where(knows, 0.15, 1.0),
        sizes=rng.permutation(np.array([0.1, 0.13, 0.16, 0.18, 0.2, 0.23])),
    )


def pretrained(rng: np.random.Generator) -> World:
    """A base that reads all domains well: most of a loss can't be learnt, one domain has a form of
    answers to learn. Written when SmolLM2's forecast had turned out far too high."""
    world, form = _raw(rng, 0.3), rng.permutation(np.arange(K) < 1)
    base = rng.uniform(0.8, 2.6, K)
    learnable = base * rng.uniform(0.04, 0.12, K)
    return replace(
        world,
        floor=base - learnable,
        amount=learnable,
        format=np.where(form, 2.0, 0.05 * base),
        format_rate=np.full(K, 20.0),
        format_shared=0.15,
        beta=rng.uniform(0.3, 0.5, K),
        rate=rng.uniform(30.0, 60.0, K),
        forgets=rng.uniform(0.1, 0.5, (K, K)),
        transfer=rng.uniform(0.0, 0.1, (K, K)),
        row_noise=0.06,
        change_noise=0.01,
        passes=np.full(K, 0.1),
    )


def adapted(rng: np.random.Generator) -> World:
    """A base after a short stratified mix: format learnt, much to gain and much to forget.

    Starts where training with a share of about .04 holds a domain where it is.
    """
    world = _raw(rng, 0.25)
    z0 = rng.uniform(1.6, 2.6, K)
    forgets = rng.uniform(1.7, 3.4, K)[:, None] * rng.uniform(0.7, 1.3, (K, K))
    return replace(
        world,
        format=rng.uniform(0.0, 0.1, K),
        amount=world.amount * 1.1,
        rate=75.0 * np.exp(0.2 * rng.standard_normal(K)),
        transfer=rng.uniform(0.0, 0.012, (K, K)),
        forgets=forgets,
        z0=z0,
    )


def adapted_scarce(rng: np.random.Generator) -> World:
    """The first domain, the target, has few rows: their repetition teaches less, then harms."""
    world = adapted(rng)
    passes = world.passes.copy()
    passes[0] = 16.0
    return replace(world, passes=passes, patience=3.0, overfit=0.8)


def adapted_long(rng: np.random.Generator) -> World:
    """Three times the training: more is forgotten, and more of it can be won back."""
    world = adapted(rng)
    return replace(world, rate=3 * world.rate, forgets=3 * world.forgets)


FOSTER: dict[str, Callable[[np.random.Generator], World]] = {
    "sample": sample,
    "wide": wide,
    "steep_flat": steep_flat,
    "sizes": sizes,
    "known": known,
    "pretrained": pretrained,
}
EXPAND: dict[str, Callable[[np.random.Generator], World]] = {
    "adapted": adapted,
    "adapted_scarce": adapted_scarce,
    "adapted_long": adapted_long,
}

TUNING = range(0, 24)
"""Seeds that settings are chosen on."""
REPORTED = range(100, 148)
"""Seeds of the tables; no setting was chosen on them."""


def budget(rounds: int, schedule: str) -> Array:
    """E of each round, as parts of a training at constant rate: shape (rounds,)."""
    if schedule == "constant":
        return np.full(rounds, 1 / rounds)
    t = (np.arange(rounds * 100) + 0.5) / (rounds * 100)
    return (0.5 * (1 + np.cos(np.pi * t))).reshape(rounds, 100).mean(1) / rounds


class Meter:
    """What is measured of a training: the same rows each time, so that changes are paired.

    The level on these rows is off by ``row_noise``, as a factor: that is what most of the measured
    9.3 % (first of eight rounds) to .1 % (last) of the paired changes are, 10 % of the change
    itself. Beyond it a change is off by ``change_noise`` of the loss over a whole training and by
    3 % of itself, most of it of one kind all along (some rows are slow learners).
    ``rows`` is the seed of the rows, which all runs on the data share; ``rng`` is the run's own.
    """

    def __init__(self, world: World, rows: int, rng: np.random.Generator) -> None:
        self._world, self._rng = world, rng
        k, drawn = world.floor.size, np.random.default_rng([rows, 9])
        self.level = np.maximum(1 + world.row_noise * drawn.standard_normal(k), 0.5)
        self._slow = drawn.standard_normal(k)
        self.offset = np.zeros(k)

    def moved(self, before: Array, after: Array, learning: float) -> Array:
        """Note a change (k,); returns the standard errors of ln(after / before) (k,)."""
        error = self._world.change_noise * learning * after + 0.03 * np.abs(after - before)
        fresh = self._rng.standard_normal(error.size)
        self.offset = self.offset + error * (0.8 * self._slow + 0.6 * fresh)
        return error / after

    def read(self, loss: Array) -> Array:
        """The measured losses (k,)."""
        return np.maximum(loss + self.offset, 0.05) * self.level
