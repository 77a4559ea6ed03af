"""Runs of MLflow below a run: one for each of several pieces, wherever it is made."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from versatune.tracking.run_log import ChildRun, log_metrics, set_tags
from versatune.work.pieces import Began, Ended, Failed, OnPieceEvent


@contextlib.contextmanager
def child_runs(described: Mapping[str, tuple[str, Mapping[str, Any]]]) -> Iterator[OnPieceEvent]:
    """What receives the events of pieces.

    ``described``: for each piece, by its name, what its run is called and the run's parameters. A
    piece's first event opens its run and its last one closes it; those still open at the end of the
    block were killed. A process that replaces a killed one reports its rounds again: each is logged
    once.
    """
    running: dict[str, ChildRun] = {}
    logged: set[tuple[str, int]] = set()

    def on_event(name: str, event: Any) -> None:
        if name not in running:
            running[name] = ChildRun(*described[name])
        with running[name].active():
            match event:
                case Began(whole=True):
                    set_tags({"versatune.reused": "true"})
                case Ended(metrics):
                    log_metrics(metrics)
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


def log_round(event: Mapping[str, Any]) -> None:
    """Show a finished round's numbers in MLflow."""
    log_metrics(event["metrics"], step=event["step"])


def log_step(event: Mapping[str, Any]) -> None:
    """Show the numbers of the last ``logging_steps`` in MLflow."""
    metrics = {f"step/{name}": value for name, value in event["metrics"].items()}
    log_metrics(metrics, step=event["step"])
