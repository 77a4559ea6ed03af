"""What nodes log to MLflow, and what happens when MLflow does not answer.

Tracking never stops work: a call that fails is written to a spool file and sent when a later
call, or a later run, finds the store answering again. Without a run (a library user, a test)
every function does nothing.
"""

import base64
import contextlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from versatune.modeling.checkpoints import load_model, load_tokenizer
from versatune.tracking.secrets import flatten, hide
from versatune.tracking.spool import Spool, Tracker, first_line

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

logger = logging.getLogger(__name__)

MAX_PARAM_LENGTH = 500

_stack: list[Tracker] = []


def begin(run_id: str, spool: Spool, error: Exception | None = None) -> None:
    """From now on, track to this run (called by the hooks). ``error``: the reason why its id is a
    local one."""
    _stack.append(Tracker(run_id, spool, error))


def end() -> None:
    """Stop tracking to the innermost run; with the last one, what was kept is sent if it can be."""
    if _stack:
        ended = _stack.pop()
        if not _stack:
            ended.spool.send(now=True)


def log_metrics(values: Mapping[str, float], step: int | None = None) -> None:
    """Record metrics; names may hold a slash (``loss/law``). NaN is left out."""
    finite = {name: float(value) for name, value in values.items() if value == value}
    if finite:
        _call("metrics", values=finite, step=step or 0)


def log_params(values: Mapping[str, Any]) -> None:
    """Record parameters, flattened, keys joined by dots; likely secrets are masked."""
    flat = {n: hide(n, str(v))[:MAX_PARAM_LENGTH] for n, v in flatten(values).items()}
    if flat:
        _call("params", values=flat)


def set_tags(tags: Mapping[str, str]) -> None:
    """Set tags on the run."""
    _call("tags", values=dict(tags))


def set_status(status: str) -> None:
    """Close the run: FINISHED, FAILED or KILLED."""
    _call("status", status=status)


def log_artifact(path: Path | str, folder: str | None = None) -> None:
    """Copy a file to the run's artifacts (below ``folder``)."""
    _call("artifact", path=str(path), folder=folder)


def log_text(text: str, name: str) -> None:
    """Write ``text`` as the artifact ``name``."""
    _call("text", text=text, name=name)


def log_figure(figure: "Figure", name: str, png: Callable[["Figure"], bytes]) -> None:
    """Write a plotly figure as two artifacts: ``name.json`` without plotly.js (the report draws
    them all), and ``name.png``, which MLflow's page shows. ``png`` makes the second."""
    if _stack:
        log_text(str(figure.to_json()), f"{name}.json")
        picture = base64.b64encode(png(figure)).decode()
        _call("bytes", content=picture, name=f"{name}.png")


def log_model(path: Path, fingerprint: str, example: str, name: str = "model") -> str | None:
    """Log a checkpoint folder as an MLflow model with signature and example; its URI.

    The same checkpoint is stored once per experiment: later runs get a tag that points to it.
    None without a run, or when MLflow does not answer (nothing is spooled: the folder stays).
    """
    if not _stack:
        return None
    import mlflow

    try:
        uri = store_model(path, fingerprint, example, name)
    except (mlflow.MlflowException, OSError) as error:
        reason = first_line(error)
        logger.warning("MLflow did not take the model (%s); it stays in %s.", reason, path)
        return None
    set_tags({"model.uri": uri, "model.fingerprint": fingerprint})
    return uri


def store_model(path: Path, fingerprint: str, example: str, name: str = "model") -> str:
    """The URI of a checkpoint folder in MLflow, put there unless it is; raises what MLflow does."""
    return _logged(fingerprint) or _log_model(path, fingerprint, example, name)


def why_offline() -> Exception | None:
    """MLflow's error when the run at work began without it; None where it answered."""
    if not _stack or not _stack[0].run_id.startswith("local-"):
        return None
    return _stack[0].error or ConnectionError("no connection")


def _logged(fingerprint: str) -> str | None:
    import mlflow

    found = mlflow.search_logged_models(
        experiment_ids=[str(mlflow.tracking.fluent._get_experiment_id())],
        filter_string=f"tags.`fingerprint` = '{fingerprint}'",
        max_results=1,
        output_format="list",
    )
    return str(found[0].model_uri) if found else None


def _log_model(path: Path, fingerprint: str, example: str, name: str) -> str:
    import mlflow
    from mlflow.models import Model, infer_signature

    parts = {"model": load_model(path), "tokenizer": load_tokenizer(path)}
    info = Model.log(  # mlflow.transformers.log_model, which can't be told to ask nothing
        None,
        mlflow.transformers,
        transformers_model=parts,
        name=re.sub(r"[^\w-]+", "-", name),  # MLflow refuses dots, slashes and more
        task="text-generation",
        signature=infer_signature([example], ["an answer"]),
        input_example=[example],
        pip_requirements=["transformers", "torch", "accelerate"],
        validate_serving_input=False,  # would generate 256 tokens, beyond a short model's positions
    )
    mlflow.set_logged_model_tags(info.model_id, {"fingerprint": fingerprint})
    return str(info.model_uri)


class ChildRun:
    """A run below the current one. Several can be open at once; each is the current one in turn,
    within :meth:`active`."""

    def __init__(self, name: str, params: Mapping[str, Any] | None = None) -> None:
        self._run: Tracker | None = None
        if _stack:
            parent = _stack[-1]
            self._run = Tracker(f"local-{os.getpid()}-{time.time_ns()}", parent.spool)
            self._run.call("create", name=name, parent=parent.run_id)
        with self.active():
            log_params(params or {})

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Send what the block tracks to this run."""
        if self._run is None:
            yield
            return
        _stack.append(self._run)
        try:
            yield
        finally:
            end()

    def close(self, status: str) -> None:
        """End it: FINISHED, FAILED or KILLED."""
        with self.active():
            set_status(status)


def _call(kind: str, **arguments: Any) -> None:
    if _stack:
        _stack[-1].call(kind, **arguments)
