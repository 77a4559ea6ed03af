"""Records for MLflow: sent at once, or kept in a file while MLflow does not answer."""

import base64
import contextlib
import logging
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from requests import RequestException

from versatune.tracking.secrets import hide
from versatune.work.log import Entry, Log, encoded

logger = logging.getLogger(__name__)

PATIENCE = 10
"""An offline store is asked again after this many times what the last attempt took, so that
waiting for it costs a run a tenth of its time at most."""

TRANSIENT = {408, 429, *range(500, 600)} - {501}
"""HTTP status codes after which a later attempt may succeed."""

LASTING = (
    r"readonly database|database or disk is full|no space left|quota exceeded|read-only file|"
    r"permission denied|no such artifact|4(?!08|29)\d\d client error|mlflow db upgrade"
)
"""Errors that MLflow reports as server errors but that last until someone fixes them."""


class Spool:
    """Calls that MLflow did not take, kept in a JSON-lines file until it does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._log = Log(path)
        self._warned = False
        self._ask_again = 0.0

    def keep(self, call: dict[str, Any], error: Exception) -> None:
        """Append one call; the first of a run gives a warning."""
        if not self._warned:
            logger.warning(
                "MLflow does not answer (%s). The run continues; its records are kept in %s "
                "and sent when MLflow answers again.",
                first_line(error),
                self.path,
            )
            self._warned = True
        with _told("A record for MLflow is lost: %s can't be written (%s).", self.path):
            self._log.append({"time": _now(), **call})

    def send(self, *, now: bool = False) -> int:
        """Replay what was kept, in order; returns how many calls went through.

        Stops at the first that fails and keeps the rest; after a failure nothing is tried for a
        while, unless ``now``. A line that is no record (cut off by a crash, damaged), and a record
        that MLflow refuses, block nothing: they are put aside in a file of their own.
        """
        if not self.path.is_file() or (time.monotonic() < self._ask_again and not now):
            return 0
        entries = self._log.entries()
        sent, unfit = 0, []
        for entry in entries:
            started = time.monotonic()
            try:
                _replay(_sound(entry))
            except Exception as error:
                if not (isinstance(error, _DamagedError) or _refused(error)):
                    self.back_off(time.monotonic() - started)
                    break
                unfit.append(entry.line)
                logger.warning(
                    "A kept record can't be sent and is put aside in %s: %s",
                    self.aside,
                    first_line(error),
                )
            else:
                sent += 1
        if unfit:
            with (
                _told("%s can't be written (%s).", self.aside),
                self.aside.open("a", encoding="utf-8") as handle,
            ):
                handle.writelines(f"{line}\n" for line in unfit)
        if sent or unfit:
            rest = "%s can't be changed (%s): what was sent from it will be sent again."
            with _told(rest, self.path):
                self._log.rewrite(map(_with_ids, entries[sent + len(unfit) :]))
        if sent:
            logger.info("MLflow answers again: %d kept records were sent.", sent)
        return sent

    @property
    def aside(self) -> Path:
        """Where records are that MLflow will never take."""
        return self.path.with_name(f"{self.path.stem}_refused{self.path.suffix}")

    def back_off(self, seconds: float) -> None:
        """Make no attempt for a while, after one that took this long and failed."""
        self._ask_again = time.monotonic() + PATIENCE * seconds


@contextlib.contextmanager
def _told(message: str, file: Path) -> Iterator[None]:
    """A file that the block can't write is said, with the system's reason, and stops nothing."""
    try:
        yield
    except OSError as failure:
        logger.warning(message, file, failure.strerror)


class _DamagedError(ValueError):
    """A line of the spool that holds no record."""


def _sound(entry: Entry) -> dict[str, Any]:
    if entry.record is None:
        raise _DamagedError("the line is no record: cut off or damaged")
    return entry.record


def _with_ids(entry: Entry) -> str:
    """A line with MLflow's ids in place of local ones, which a later process does not know."""
    if entry.record is None:
        return entry.line
    record = entry.record
    ids = {
        key: _created.get(record[key], record[key]) for key in ("run_id", "parent") if key in record
    }
    return encoded(record | ids)


class Tracker:
    """The run at work: its MLflow id, or a local id and why MLflow could not be reached."""

    def __init__(self, run_id: str, spool: Spool, error: Exception | None = None) -> None:
        self.run_id = run_id
        self.spool = spool
        self.error = error

    def call(self, kind: str, **arguments: Any) -> None:
        """Make one tracking call, now or later."""
        record = {
            "run_id": _created.get(self.run_id, self.run_id),
            "kind": kind,
            "time": _now(),
            **arguments,
        }
        if self.spool.path.is_file():
            self.spool.keep(record, ConnectionError("earlier records wait"))
            self.spool.send()
            return
        started = time.monotonic()
        try:
            _replay(record)
        except Exception as error:
            if _refused(error):
                logger.warning("MLflow refused a record (%s): %s", kind, first_line(error))
                return
            self.spool.keep(record, error)
            self.spool.back_off(time.monotonic() - started)


def first_line(error: Exception) -> str:
    """An error's message, shortened, with passwords in addresses masked."""
    return hide("", str(error).split("\n", maxsplit=1)[0])[:200]


def means_offline(error: Exception) -> bool:
    """Whether a later attempt may succeed: after a lost connection, a timeout, a lock.

    False where it would fail again: no permission, a full disk, a missing file, a wrong value.
    """
    from mlflow.exceptions import MlflowException

    if re.search(LASTING, str(error), re.IGNORECASE):
        return False
    if isinstance(error, MlflowException):
        return error.get_http_status_code() in TRANSIENT
    if isinstance(error, RequestException):
        return error.response is None or error.response.status_code in TRANSIENT
    return not isinstance(error, OSError) or isinstance(error, ConnectionError | TimeoutError)


def _refused(error: Exception) -> bool:
    """Whether a record can never be sent: MLflow refused it, or the file it names is gone."""
    from mlflow.exceptions import MlflowException

    final = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST")
    return isinstance(error, FileNotFoundError) or (
        isinstance(error, MlflowException) and error.error_code in final
    )


_created: dict[str, str] = {}
"""Local ids of runs that began without MLflow, and the ids it gave them later."""


def _now() -> int:
    return int(time.time() * 1000)


def _create_run(name: str, parent: str | None, began: int) -> str:
    """The id of a new run, below ``parent`` (also a local id), begun at a time in ms."""
    import mlflow

    experiment = str(mlflow.tracking.fluent._get_experiment_id())
    tags = {"mlflow.runName": name}
    if parent:
        tags["mlflow.parentRunId"] = _created.get(parent, parent)
    return str(mlflow.MlflowClient().create_run(experiment, began, tags).info.run_id)


def _replay(call: Mapping[str, Any]) -> None:
    """Make one call against MLflow; raises whatever it raises."""
    import mlflow
    from mlflow.entities import Metric, Param, RunTag

    client = mlflow.MlflowClient()
    if call["kind"] == "create":
        _created[call["run_id"]] = _create_run(call["name"], call.get("parent"), call["time"])
        return
    run_id = _created.get(call["run_id"], call["run_id"])
    match call["kind"]:
        case "metrics":
            metrics = [Metric(k, v, call["time"], call["step"]) for k, v in call["values"].items()]
            client.log_batch(run_id, metrics=metrics)
        case "params":
            items = [Param(k, str(v)) for k, v in call["values"].items()]
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
        case "bytes":
            folder, _, name = call["name"].rpartition("/")
            with tempfile.TemporaryDirectory() as here:
                (Path(here) / name).write_bytes(base64.b64decode(call["content"]))
                client.log_artifact(run_id, str(Path(here) / name), folder or None)
        case "status":
            client.set_terminated(run_id, call["status"], call["time"])
