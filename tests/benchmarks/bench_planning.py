"""What planning a round costs, and how well it packs.

    python tests/benchmarks/bench_planning.py [--data FOLDER] [--domains 1000] [--rows 10000000]
        [--units rows tokens supervised_tokens]

Scale: many domains of very different sizes and shares; the seconds of a round after set-up, of
rounds four times as long (cost is to grow with the round, not with the data), of going on from a
checkpoint (set-up and the next round, which must be the same), and the memory.
Packing: the part of the packed rows that is filled, for several lookaheads, and the largest
distance of a domain from its share at the end of any packed row, in packed rows. ``--data`` is a
folder of JSONL files (one a domain) of instruction, input, output; without it lengths are drawn
like theirs.
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from versatune.mixing.config import Unit
from versatune.mixing.plan_config import PlanParams
from versatune.mixing.planner import Planner, RoundPlan

UNITS: tuple[Unit, ...] = ("rows", "tokens", "supervised_tokens")
Ints = npt.NDArray[np.int32]


def drawn_lengths(n: int, longest: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    lengths = np.clip(rng.lognormal(5.0, 0.8, n), 8, longest).astype(np.int32)
    return lengths, np.maximum(lengths * rng.beta(2, 3, n), 1).astype(np.int32)


def read_lengths(folder: Path, longest: int) -> tuple[list[int], Ints, Ints]:
    """Rows of each file, tokens and supervised tokens of each row (a word is 1.35 tokens)."""
    sizes, lengths, supervised = [], [], []
    for path in sorted(folder.glob("*.jsonl")):
        lines = path.read_text(encoding="utf-8").splitlines()
        sizes.append(len(lines))
        for line in lines:
            row = json.loads(line)
            prompt = 12 + 1.35 * len(f"{row['instruction']} {row.get('input', '')}".split())
            answer = 2 + 1.35 * len(row["output"].split())
            lengths.append(min(int(prompt + answer), longest))
            supervised.append(min(int(answer), lengths[-1]))
    return sizes, np.array(lengths, np.int32), np.array(supervised, np.int32)


def furthest(planner: Planner, plan: RoundPlan, weights: npt.NDArray[np.float64]) -> float:
    """The largest distance from a share at the end of any packed row, in packed rows."""
    column = {
        "rows": np.ones_like(planner.lengths),
        "tokens": planner.lengths,
        "supervised_tokens": planner.supervised,
    }[planner.unit]
    domain = np.searchsorted(planner.starts, plan.examples, side="right") - 1
    given = np.zeros((plan.examples.size + 1, weights.size))
    given[np.arange(1, plan.examples.size + 1), domain] = column[plan.examples]
    had = given.cumsum(axis=0)[plan.offsets]
    return float(np.abs(had - weights * had.sum(axis=1, keepdims=True)).max() / plan.bound)


def scale(domains: int, rows: int, units: Sequence[Unit]) -> None:
    rng = np.random.default_rng(0)
    sizes = np.maximum(rng.dirichlet(np.ones(domains)) * rows, 200).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    lengths, supervised = drawn_lengths(int(starts[-1]), 2048, rng)
    weights = rng.dirichlet(np.ones(domains))
    names = tuple(f"d{j}" for j in range(domains))
    print(f"{domains} domains, {starts[-1]:,} rows, max_length 2048, lookahead 64")
    for unit in units:
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        planner = Planner(
            names, starts, lengths, supervised, PlanParams(max_length=2048), unit=unit, seed=0
        )
        state = planner.plan_round(weights, planner.initial_state(), 4096).state
        setup = time.perf_counter() - began
        seconds: dict[int, list[float]] = {1024: [], 4096: []}
        busy = []
        for _ in range(5):
            for n_rows, times in seconds.items():
                began, worked = time.perf_counter(), time.process_time()
                plan = planner.plan_round(weights, state, n_rows)
                times.append(time.perf_counter() - began)
                busy.append(time.process_time() - worked)
                state = plan.state
        short, long = (statistics.median(times) for times in seconds.values())
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        far = furthest(planner, plan, weights)
        following = planner.plan_round(weights, state, 1024)
        began = time.process_time()
        again = Planner(
            names, starts, lengths, supervised, PlanParams(max_length=2048), unit=unit, seed=0
        ).plan_round(weights, state, 1024)
        resumed = time.process_time() - began
        assert (again.examples == following.examples).all()
        print(
            f"  {unit:18s} set-up with the first round {setup:.2f} s; 4096 packed rows "
            f"({plan.examples.size:,} examples) {long:.2f} s "
            f"(processor {statistics.median(busy[1::2]):.2f} s), {long / short:.1f} times the time "
            f"of 1024; resumed in {resumed:.2f} s of processor time; filled {plan.efficiency:.3f}; "
            f"furthest {far:.2f} packed rows; "
            f"memory + {grown:.0f} MiB ({grown * 2**20 / starts[-1]:.0f} B a row)"
        )


def packing(data: Path | None, max_length: int) -> None:
    rng = np.random.default_rng(0)
    if data:
        sizes, lengths, supervised = read_lengths(data, max_length)
    else:
        sizes = [2500] * 6
        lengths, supervised = drawn_lengths(15000, max_length, rng)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    names = tuple(f"d{j}" for j in range(len(sizes)))
    print(f"{len(names)} domains, {starts[-1]:,} rows, max_length {max_length}, 20 rounds of 100")
    for unit in UNITS:
        for lookahead in (1, 16, 64, 256):
            params = PlanParams(max_length=max_length, lookahead=lookahead)
            planner = Planner(names, starts, lengths, supervised, params, unit=unit, seed=0)
            state, filled, far = planner.initial_state(), [], []
            for _ in range(20):
                weights = rng.dirichlet(np.ones(len(names)))
                plan = planner.plan_round(weights, state, 100)
                state = plan.state
                filled.append(plan.efficiency)
                far.append(furthest(planner, plan, weights))
            print(
                f"  {unit:18s} lookahead {lookahead:3d}: filled {np.mean(filled):.3f} "
                f"(least {min(filled):.3f}); furthest {max(far):.2f} packed rows"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--domains", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--units", nargs="+", choices=UNITS, default=UNITS)
    arguments = parser.parse_args()
    scale(arguments.domains, arguments.rows, arguments.units)
    for max_length in (512, 1024):
        packing(arguments.data, max_length)


if __name__ == "__main__":
    main()
