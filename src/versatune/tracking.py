"""What nodes tell MLflow, and what happens when MLflow does not answer.

Tracking never stops work: a call that fails is written to a spool file and sent when a later
call, or a later run, finds the store answering again. Without a run (a library user, a test)
every function does nothing.
"""

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from versatune.artifacts import plain

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

logger = logging.getLogger(__name__)

MAX_PARAM_LENGTH = 500


class Spool:
    """Calls that MLflow did not take, kept in a JSON-lines file until it does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._warned = False

    def keep(self, call: dict[str, Any], error: Exception) -> None:
        """Append one call; the first of a run is said aloud."""
        if not self._warned:
            reason = str(error).split("\n", maxsplit=1)[0][:200]
            logger.warning(
                "MLflow does not answer (%s). Work goes on; what it should record is kept in %s "
                "and sent when it answers again.",
                reason,
                self.path,
            )
            self._warned = True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(plain(call)) + "\n")

    def send(self) -> int:
        """Replay what was kept, in order; returns how many calls went through.

        Stops at the first that fails and keeps the rest. A line that was cut off by a crash is
        left out.
        """
        if not self.path.is_file():
            return 0
        lines = self.path.read_text(encoding="utf-8").splitlines()
        sent = 0
        for line in lines:
            try:
                _replay(json.loads(line))
            except Exception as error:
                if not (isinstance(error, json.JSONDecodeError) or _refused(error)):
                    break
                logger.warning("A kept record can't be sent and is left out: %s", error)
            sent += 1
        rest = lines[sent:]
        if rest:
            self.path.write_text("\n".join(rest) + "\n", encoding="utf-8")
        else:
            self.path.unlink()
        if sent:
            logger.info("MLflow answers again: %d kept records were sent.", sent)
        return sent


class Tracker:
    """The run at work: its MLflow id, or a local id while MLflow can't be reached."""

    def __init__(self, run_id: str, spool: Spool) -> None:
        self.run_id = run_id
        self.spool = spool

    def call(self, kind: str, **arguments: Any) -> None:
        """Make one tracking call, now or later."""
        record = {
            "run_id": self.run_id,
            "kind": kind,
            "time": int(time.time() * 1000),
            **arguments,
        }
        try:
            if self.spool.path.is_file():
                raise ConnectionError("earlier records wait")
            _replay(record)
        except Exception as error:
            if _refused(error):
                logger.warning("MLflow refused a record (%s): %s", kind, error)
                return
            self.spool.keep(record, error)
            self.spool.send()


_stack: list[Tracker] = []


@contextlib.contextmanager
def tracked(run_id: str, spool: Spool) -> Iterator[None]:
    """Send what the block tracks to this run."""
    begin(run_id, spool)
    try:
        yield
    finally:
        end()


def begin(run_id: str, spool: Spool) -> None:
    """From now on, track to this run (the hooks call it)."""
    _stack.append(Tracker(run_id, spool))


def end() -> None:
    """Stop tracking to the innermost run."""
    if _stack:
        _stack.pop()


def log_metrics(values: Mapping[str, float], step: int | None = None) -> None:
    """Record metrics; names may hold a slash (``validation_loss/law``). NaN is left out."""
    finite = {name: float(value) for name, value in values.items() if value == value}
    if finite:
        _each(lambda run: run.call("metrics", values=finite, step=step or 0))


def log_params(values: Mapping[str, Any]) -> None:
    """Record parameters; mappings and models are flattened, their keys joined by dots."""
    flat = {name: str(value)[:MAX_PARAM_LENGTH] for name, value in flatten(values).items()}
    if flat:
        _each(lambda run: run.call("params", values=flat))


def set_tags(tags: Mapping[str, str]) -> None:
    """Set tags on the run."""
    _each(lambda run: run.call("tags", values=dict(tags)))


def set_status(status: str) -> None:
    """Close the run: FINISHED, FAILED or KILLED."""
    _each(lambda run: run.call("status", status=status))


def log_artifact(path: Path | str, folder: str | None = None) -> None:
    """Copy a file to the run's artifacts (below ``folder``)."""
    _each(lambda run: run.call("artifact", path=str(path), folder=folder))


def log_text(text: str, name: str) -> None:
    """Write ``text`` as the artifact ``name``."""
    _each(lambda run: run.call("text", text=text, name=name))


def log_figure(figure: "Figure", name: str) -> None:
    """Write a plotly figure as a JSON artifact, without plotly.js; the report draws them all."""
    if _stack:
        log_text(str(figure.to_json()), name)


def log_model(path: Path, fingerprint: str, example: str) -> str | None:
    """Log a checkpoint folder as an MLflow model with signature and example; its URI.

    The same checkpoint is stored once per experiment: later runs get a tag that points to it.
    None without a run, or when MLflow does not answer (nothing is spooled: the folder stays).
    """
    if not _stack:
        return None
    import mlflow

    try:
        uri = store_model(path, fingerprint, example)
    except (mlflow.MlflowException, OSError) as error:
        logger.warning("MLflow did not take the model (%s); it stays in %s.", error, path)
        return None
    set_tags({"model.uri": uri, "model.fingerprint": fingerprint})
    return uri


def store_model(path: Path, fingerprint: str, example: str) -> str:
    """The URI of a checkpoint folder in MLflow, put there unless it is; raises what MLflow does."""
    return _logged(fingerprint) or _log_model(path, fingerprint, example)


def away() -> bool:
    """Whether the run at work began without MLflow: its records wait for a later run."""
    return bool(_stack) and _stack[-1].run_id.startswith("local-")


def _logged(fingerprint: str) -> str | None:
    import mlflow

    found = mlflow.search_logged_models(
        experiment_ids=[str(mlflow.tracking.fluent._get_experiment_id())],
        filter_string=f"tags.`fingerprint` = '{fingerprint}'",
        max_results=1,
        output_format="list",
    )
    return str(found[0].model_uri) if found else None


def _log_model(path: Path, fingerprint: str, example: str) -> str:
    import mlflow
    from mlflow.models import infer_signature

    from versatune.modeling.checkpoints import load_model, load_tokenizer

    parts = {"model": load_model(path), "tokenizer": load_tokenizer(path)}
    info = mlflow.transformers.log_model(
        parts,
        name="model",
        task="text-generation",
        signature=infer_signature([example], ["an answer"]),
        input_example=[example],
        pip_requirements=["transformers", "torch", "accelerate"],
    )
    mlflow.set_logged_model_tags(info.model_id, {"fingerprint": fingerprint})
    return str(info.model_uri)


@contextlib.contextmanager
def child_run(name: str, params: Mapping[str, Any] | None = None) -> Iterator[None]:
    """A run below the current one, for the block: FINISHED, FAILED or KILLED as the block ends."""
    if not _stack:
        yield
        return
    parent = _stack[-1]
    run_id = f"local-{os.getpid()}-{time.time_ns()}"
    try:
        run_id = _client_create(name, parent.run_id)
    except Exception as error:
        parent.spool.keep(
            {"kind": "create", "run_id": run_id, "name": name, "parent": parent.run_id}, error
        )
    status = "KILLED"
    with tracked(run_id, parent.spool):
        try:
            log_params(params or {})
            yield
            status = "FINISHED"
        except Exception:
            status = "FAILED"
            raise
        finally:
            set_status(status)


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings and models as one level, keys joined by dots."""
    value = plain(value)
    if isinstance(value, dict) and (value or not prefix):
        flat: dict[str, Any] = {}
        for key, inner in value.items():
            flat |= flatten(inner, f"{prefix}.{key}" if prefix else str(key))
        return flat
    return {prefix: value}


def _refused(error: Exception) -> bool:
    """Whether MLflow answered, and won't take the record whenever it is sent."""
    from mlflow.exceptions import MlflowException

    final = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST")
    return isinstance(error, MlflowException) and error.error_code in final


def _each(action: Callable[[Tracker], None]) -> None:
    if _stack:
        action(_stack[-1])


_created: dict[str, str] = {}
"""Local ids of runs that began without MLflow, and the ids it gave them later."""


def _client_create(name: str, parent: str | None) -> str:
    import mlflow

    experiment = str(mlflow.tracking.fluent._get_experiment_id())
    tags = {"mlflow.runName": name}
    if parent:
        tags["mlflow.parentRunId"] = _created.get(parent, parent)
    return str(mlflow.MlflowClient().create_run(experiment, tags=tags).info.run_id)


def _replay(call: Mapping[str, Any]) -> None:
    """Make one call against MLflow; raises whatever it raises."""
    import mlflow
    from mlflow.entities import Metric, Param, RunTag

    client = mlflow.MlflowClient()
    if call["kind"] == "create":
        _created[call["run_id"]] = _client_create(call["name"], call.get("parent"))
        return
    run_id = _created.get(call["run_id"], call["run_id"])
    match call["kind"]:
        case "metrics":
            metrics = [Metric(k, v, call["time"], call["step"]) for k, v in call["values"].items()]
            client.log_batch(run_id, metrics=metrics)
        case "params":
            items = [Param(k, v) for k, v in call["values"].items()]
            known = client.get_run(run_id).data.params
            items = [p for p in items if known.get(p.key) != p.value]
            for start in range(0, len(items), 100):
                client.log_batch(run_id, params=items[start : start + 100])
        case "tags":
            client.log_batch(run_id, tags=[RunTag(k, str(v)) for k, v in call["values"].items()])
        case "artifact":
            client.log_artifact(run_id, call["path"], call["folder"])
        case "text":
            client.log_text(run_id, call["text"], call["name"])
        case "status":
            client.set_terminated(run_id, call["status"])
