"""The edge to MLflow: what nodes log, what waits while it is away, the model registry, secrets."""

from versatune.tracking.run_log import (
    ChildRun,
    away,
    begin,
    child_run,
    end,
    log_artifact,
    log_figure,
    log_metrics,
    log_model,
    log_params,
    log_text,
    set_status,
    set_tags,
    store_model,
    tracked,
    why_away,
)
from versatune.tracking.secrets import flatten
from versatune.tracking.spool import Spool

__all__ = [
    "ChildRun",
    "Spool",
    "away",
    "begin",
    "child_run",
    "end",
    "flatten",
    "log_artifact",
    "log_figure",
    "log_metrics",
    "log_model",
    "log_params",
    "log_text",
    "set_status",
    "set_tags",
    "store_model",
    "tracked",
    "why_away",
]
