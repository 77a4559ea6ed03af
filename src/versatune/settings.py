"""Kedro settings: hooks, configuration merging, and no telemetry."""

import os

os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # a bar for each model that is loaded
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

from versatune.project.quiet import suppress_viz_advice, without_type_hint_advice

suppress_viz_advice()

with without_type_hint_advice():
    from versatune.project.closing import ClosingHook
    from versatune.project.hook import ParametersHook
    from versatune.project.node_hook import NodeHook
    from versatune.project.run_hooks import ProjectHook, TrackingHook

DISABLE_HOOKS_FOR_PLUGINS = ("kedro_mlflow",)
"""TrackingHook is kedro-mlflow's own hook, extended."""

_TRACKING = TrackingHook()
HOOKS = (
    ClosingHook(lambda: _TRACKING.page),
    *(ProjectHook(), _TRACKING, NodeHook(), ParametersHook()),
)
"""The one registered last comes first among those that ask to be: parameters are checked before the
data folder is locked."""

CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "config_patterns": {"mlflow": ["mlflow*", "mlflow*/**", "**/mlflow*"]},
    "merge_strategy": {"parameters": "soft", "mlflow": "soft", "globals": "soft"},
}
