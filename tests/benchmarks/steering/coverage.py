"""How often the forecast's 90 % intervals hold what a simulated training reaches.

    python -m tests.benchmarks.steering.coverage > docs/results/simulated_forecast.csv

Before training, from short runs on mixes: each domain's end on equal shares, on 0.67 for one
domain, and on a random mix, against what is then measured of it. And the forecast headroom against
the gain of the best static mix of a search on the true losses.
"""

import argparse
import csv
import sys
from typing import Any

import numpy as np

from tests.benchmarks.steering.contest import DOMAINS, STEPS, on_mixes, search, static
from tests.benchmarks.steering.worlds import (
    EXPAND,
    FOSTER,
    REPORTED,
    TUNING,
    Array,
    Meter,
    World,
    budget,
)
from versatune.mixing.config import ObjectiveParams
from versatune.mixing.forecast import INTERVAL, follow, headroom, scattered
from versatune.mixing.law_fit import fit
from versatune.mixing.objective import make_objective

WORLDS = {**FOSTER, **EXPAND}


def trained(world: World, mix: Array, parts: Array, seed: int) -> tuple[Array, Array]:
    """Measured losses (k,) before and after a training on ``mix``."""
    meter, state = Meter(world, seed, np.random.default_rng([seed, 3])), world.begin(1)
    before = world.loss(state)[0]
    base = meter.read(before)
    for part in parts:
        state = world.train(state, mix[None], float(part))
        after = world.loss(state)[0]
        meter.moved(before, after, float(part))
        before = after
    return base, meter.read(before)


def row_of(name: str, seeds: range) -> dict[str, Any]:
    """The row of one world."""
    k, parts = len(DOMAINS), budget(8, "cosine")
    total, uniform, rng = float(parts.sum()), np.full(k, 1 / k), np.random.default_rng(5)
    held, gains = [], []
    for seed in seeds:
        world = WORLDS[name](np.random.default_rng(seed))
        traces = on_mixes(world, seed, total)
        law = fit(traces, traces[0].losses[0], learning=STEPS * total)
        passes = world.passes * total
        base = uniform
        for mix in (uniform, 0.6 * np.eye(k)[0] + 0.4 * uniform, rng.dirichlet(np.full(k, 2.0))):
            base, end = trained(world, mix, parts, seed)
            ends = scattered(follow(law, [(mix, STEPS * total)], passes), law.base)
            low, high = np.quantile(ends, INTERVAL, axis=0)
            held.append((end >= low) & (end <= high))
        objective = make_objective(ObjectiveParams(), DOMAINS, base)
        room = headroom(law, STEPS * total, objective, passes)
        best = search(lambda m, w=world: static(w, m, parts).mean(1), uniform)
        even, least = static(world, np.stack([uniform, best]), parts).mean(1)
        gains.append([room.gain, room.low, room.high, 1 - least / even])
    gain, low, high, true = np.array(gains).T
    return {
        "world": name,
        "covered": np.mean(held),
        "headroom_forecast": 100 * gain.mean(),
        "headroom_true": 100 * true.mean(),
        "headroom_ratio_median": np.median(gain / true),
        "headroom_within_factor_2": np.mean((gain < 2 * true) & (gain > true / 2)),
        "headroom_covered": np.mean((true >= low) & (true <= high)),
        "n_seeds": len(seeds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tuning", action="store_true", help="the seeds settings are chosen on")
    parser.add_argument("--worlds", default=",".join(WORLDS))
    given = parser.parse_args()
    table = None
    for name in given.worlds.split(","):
        row = row_of(name, TUNING if given.tuning else REPORTED)
        if table is None:
            table = csv.DictWriter(sys.stdout, list(row), lineterminator="\n")
            table.writeheader()
        table.writerow({k: f"{v:.3f}" if isinstance(v, float) else v for k, v in row.items()})
        sys.stdout.flush()


if __name__ == "__main__":
    main()
