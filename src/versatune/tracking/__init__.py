"""The edge to MLflow: what nodes log, what waits while it is offline, the registry, secrets."""

from versatune.tracking.piece_runs import child_runs, log_round, log_step
from versatune.tracking.run_log import (
    begin,
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
    why_offline,
)

__all__ = [
    "begin",
    "child_runs",
    "end",
    "log_artifact",
    "log_figure",
    "log_metrics",
    "log_model",
    "log_params",
    "log_round",
    "log_step",
    "log_text",
    "set_status",
    "set_tags",
    "store_model",
    "why_offline",
]
