"""The edge to MLflow: what nodes log, what waits while it is offline, the registry, secrets."""

from versatune.tracking.run_log import (
    ChildRun,
    begin,
    child_run,
    end,
    is_offline,
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
    why_offline,
)
from versatune.tracking.secrets import flatten
from versatune.tracking.spool import Spool

__all__ = [
    "ChildRun",
    "Spool",
    "begin",
    "child_run",
    "end",
    "flatten",
    "is_offline",
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
    "why_offline",
]
