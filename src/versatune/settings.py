"""Kedro settings."""

import os

os.environ.setdefault("DO_NOT_TRACK", "true")

CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "merge_strategy": {"parameters": "soft", "mlflow": "soft", "globals": "soft"},
}
