"""Planning costs what the round costs, not what the data does: nothing is held per row."""

import tracemalloc

import numpy as np

from versatune.mixing.draws import Window
from versatune.mixing.plan_config import PlanParams
from versatune.mixing.planner import Planner


def test_rows_that_are_not_drawn_cost_four_bytes_and_are_not_looked_at(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    looked = 0
    next_key = Window._next_key

    def counted(self: Window) -> int:
        nonlocal looked
        looked += 1
        return next_key(self)

    monkeypatch.setattr(Window, "_next_key", counted)
    n, k, n_rows = 1_000_000, 20, 64
    starts = np.linspace(0, n, k + 1).astype(np.int64)
    lengths = np.random.default_rng(0).integers(20, 400, n).astype(np.int32)
    tracemalloc.start()
    planner = Planner(
        tuple(f"d{j}" for j in range(k)),
        starts,
        lengths,
        lengths,
        PlanParams(max_length=1024, lookahead=32),
        unit="rows",
        seed=0,
    )
    plan = planner.plan_round(np.full(k, 1 / k), planner.initial_state(), n_rows)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The orders of the passes, int32, and next to nothing else.
    assert held < 4 * n + 1_000_000
    assert peak < 4 * n + 1_000_000
    assert looked <= plan.examples.size + 32 * k
