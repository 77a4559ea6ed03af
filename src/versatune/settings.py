"""Kedro settings: hooks, configuration merging, and no telemetry."""

import os

os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from versatune.hooks import ProjectHook, TrackingHook
from versatune.node_hook import NodeHook

DISABLE_HOOKS_FOR_PLUGINS = ("kedro_mlflow",)
"""TrackingHook is kedro-mlflow's own hook, extended."""

HOOKS = (ProjectHook(), TrackingHook(), NodeHook())

CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "config_patterns": {"mlflow": ["mlflow*", "mlflow*/**", "**/mlflow*"]},
    "merge_strategy": {"parameters": "soft", "mlflow": "soft", "globals": "soft"},
}
