"""MLflow's runs below a comparison's: one a strategy and seed, wherever it is trained."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from versatune import tracking
from versatune.comparing.runs import Began, Ended, Failed, Run
from versatune.pipelines.train.nodes import log_round
from versatune.work.pieces import OnPieceEvent


@contextlib.contextmanager
def child_runs(runs: Mapping[str, Run]) -> Iterator[OnPieceEvent]:
    """What receives the events of ``runs``, by their names.

    A run's first event opens its run of MLflow and its last one closes it; those still open at the
    end of the block were killed. A process that goes on for a killed one tells its rounds again:
    each is logged once.
    """
    running: dict[str, tracking.ChildRun] = {}
    logged: set[tuple[str, int]] = set()

    def on_event(name: str, event: Any) -> None:
        if name not in running:
            run = runs[name]
            running[name] = tracking.ChildRun(f"{run.strategy} seed {run.seed}", _described(run))
        with running[name].active():
            match event:
                case Began(whole=True):
                    tracking.set_tags({"versatune.reused": "true"})
                case Ended(metrics):
                    tracking.log_metrics(metrics)
                case {"step": int(step)} if (name, step) not in logged:
                    log_round(event)
                    logged.add((name, step))
        if isinstance(event, Ended | Failed):
            running.pop(name).close("FINISHED" if isinstance(event, Ended) else "FAILED")

    try:
        yield on_event
    finally:
        for run in running.values():
            run.close("KILLED")


def _described(run: Run) -> Mapping[str, Any]:
    """The parameters a person compares runs by."""
    about = ("rounds", "steps_per_round", "unit", "learning_rate", "max_length")
    return {
        "strategy": {"label": run.strategy, **run.train.strategy.model_dump()},
        "seed": run.seed,
        "train": {name: getattr(run.train, name) for name in about},
    }
