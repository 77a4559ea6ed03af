"""What a run is called in MLflow, where its page is, and the views that show it."""

import datetime
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from versatune.tracking.secrets import flatten, hide

MAX_NAME = 120
"""Characters of the parameters given on the command line in a run's name."""

SAID = (
    *("train.strategy.name", "train.rounds", "train.steps_per_round", "base_model.name_or_path"),
    "train.resume",
)
"""Parameters that a training run's name contains anyway, and one that changes no result."""

_CHARTS = "chartsSearchFilter"
VIEWS: dict[str, dict[str, Any]] = {
    "runs": {
        "selectedColumns": [
            *("attributes.`Duration`", "tags.`strategy`"),
            *("metrics.`mean_loss`", "metrics.`mean_accuracy`"),
        ]
    },
    "losses": {_CHARTS: "^loss/"},
    "shares": {_CHARTS: "^share/"},
    "results": {_CHARTS: "^tuned/"},
}
"""Views kept in the experiment: the name in the page's address, and the state of MLflow's page."""


def run_name(
    run_params: Mapping[str, Any], used: Mapping[str, Any] | None, now: datetime.datetime
) -> str:
    """A run's name: what differs between runs, as in ``foster · 8 x 50 · SmolLM2 · 16:05``.

    It begins with the pipelines, unless all of them run. ``used``: the parameters of a run that
    trains, None for another; those given on the command line are added.
    """
    names = [n for n in run_params.get("pipeline_names") or [] if n != "__default__"]
    parts = ["+".join(names)]
    given = flatten(run_params.get("runtime_params") or {})
    if used is not None:
        train = used["train"]
        parts += [train["strategy"]["name"], f"{train['rounds']} x {train['steps_per_round']}"]
        base = used["base_model"].get("name_or_path")
        parts.append(Path(base).name if base else "sample model")
        given = {key: value for key, value in given.items() if key not in SAID}
    elif not names:
        parts = ["all"]
    changed = " ".join(
        f"{key.partition('.')[2] or key}={hide(key, str(value))}" for key, value in given.items()
    )
    env = run_params.get("env")
    parts += [changed[:MAX_NAME], env if env and env != "local" else "", now.strftime("%H:%M")]
    return " · ".join(part for part in parts if part)


def run_page(tracking_uri: str, experiment: str, run: str, host: str, port: str) -> str:
    """The address of a run's page: of the server, or of the page that `kedro mlflow ui` opens."""
    served = re.match(r"https?://", tracking_uri)
    server = hide("", tracking_uri).rstrip("/") if served else f"http://{host}:{port}"
    return f"{server}/#/experiments/{experiment}/runs/{run}?workflowType=machine_learning"
