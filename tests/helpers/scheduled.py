"""Nights of scheduled retraining as they come: real runs, data arriving, real faults.

For tests/e2e/test_retraining.py (a few nights) and tests/benchmarks/retraining_week.py (seven).
"""

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from tests.helpers.support import command, copy_project, environment
from tests.helpers.tracking_server import TrackingServer, wait_for

NAME = "versatune-test"
DATA = Path("data/test")
KEEP_LAST = 1
ABSURD = "retrain.learning_rate=1.0,train.loss_guard=1000"
"""Parameters of a night that makes a worse model; the guard would stop it half-way."""
OVERLAY: dict[str, Any] = {
    "parameters_ingest.yml": {"ingest": {"validation_fraction": 0.1, "min_validation_rows": 8}},
    "parameters_retrain.yml": {
        "retrain": {
            "model_name": NAME,
            "heldout_rows_per_domain": 64,
            "keep_last": KEEP_LAST,
        }
    },
    "parameters_sample.yml": {"sample": {"documents": 60, "phrasings": 1}},
    "parameters_train.yml": {
        "train": {
            "rounds": 3,
            "steps_per_round": 10,
            "per_device_train_batch_size": 4,
            "heldout_rows_per_domain": 8,
        }
    },
}
"""What replaces files of conf/test: a training that gains something, judged by the usual rule on
held-out loss alone. A model of this size guesses when it is asked."""


@dataclass(frozen=True)
class Night:
    """What comes before a run, and what happens in it."""

    name: str
    rows: int = 60
    """Rows that arrive in every domain."""
    broken: bool = False
    """Whether law's new file is no JSON for the most part; it is mended before the next night."""
    parameters: str = ""
    """Given as ``--params``."""
    store_down: bool = False
    """Whether the tracking server is stopped."""
    killed: bool = False
    """Whether the run gets SIGKILL in the middle of training."""


@dataclass
class Told:
    """What a night left behind."""

    night: Night
    began: int
    ended: int
    """Milliseconds since 1970."""
    code: int
    log: str
    champion: int | None
    """The version that serves afterwards; None before there is one or while nobody knows."""
    disk: dict[str, int] = field(default_factory=dict)
    """Bytes by part of the project."""
    weights: int = 0
    """Files of weights in the project, the base model's among them."""


class Nights:
    """A project with a tracking server, to which data come night by night."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.path = copy_project(root, folder / "project")
        self.server = TrackingServer(self.path / "mlflow")
        self.told: list[Told] = []
        self.kept = folder / "kept"
        """A copy of every challenger, by retraining."""
        self._scratch = self.path / "scratch"
        self._scratch.mkdir()
        self._rows = _rows(root, folder / "facts")
        self._broken: list[Path] = []
        self._configure()

    def __enter__(self) -> Self:
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()

    def arrive(self, night: Night) -> None:
        """New rows in every domain; files that came broken before are mended."""
        for path in self._broken:
            path.write_text("".join(itertools.islice(self._rows["law"], 60)), encoding="utf-8")
        self._broken = []
        for domain, rows in self._rows.items():
            path = self.path / "data" / "incoming" / domain / f"{len(self.told) + 1:04d}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            text = "".join(itertools.islice(rows, night.rows))
            if night.broken and domain == "law":
                self._broken.append(path)
                text += "no JSON\n" * night.rows
            if text:
                path.write_text(text, encoding="utf-8")

    def run(self, night: Night) -> Told:
        """Let data arrive, run the pipeline, and note what it left behind."""
        self.arrive(night)
        if night.store_down:
            self.server.stop()
        else:
            self.server.start()
        arguments = ["--params", night.parameters] if night.parameters else []
        began = _now()
        with self.started(*arguments) as (child, log):
            if night.killed:
                wait_for(self.training, "a challenger is in training", child)
                os.killpg(child.pid, signal.SIGKILL)
            code = child.wait(600)
        told = Told(night, began, _now(), code, log.read_text(), None)
        if not night.store_down:
            told.champion = self.aliases().get("champion")
        told.disk, told.weights = self.disk()
        self._keep_challengers()
        self.told.append(told)
        return told

    @contextlib.contextmanager
    def started(self, *arguments: str) -> Iterator[tuple["subprocess.Popen[bytes]", Path]]:
        """The pipeline as a child in a session of its own, and its log; ended with the block."""
        log = self._scratch.parent.parent / f"run-{time.monotonic_ns()}.log"
        with log.open("wb") as out:
            child = subprocess.Popen(
                command("--pipeline", "retrain", "--env", "test", *arguments),
                cwd=self.path,
                env=self.environment(),
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        try:
            yield child, log
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()

    def environment(self) -> dict[str, str]:
        """Caches and temporary files lie in the project, where they are counted."""
        return {
            **environment(),
            "HF_HOME": str(self._scratch / "huggingface"),
            "TMPDIR": str(self._scratch),
        }

    def training(self) -> bool:
        """Whether an unfinished challenger has been through its first round."""
        for metrics in (self.path / DATA / "06_models" / "retrain").glob("*/challenger/metrics.*"):
            if not (metrics.parent / "manifest.json").is_file():
                return len(metrics.read_text().splitlines()) > 1
        return False

    def outcome(self) -> dict[str, Any]:
        """What the last finished night decided."""
        path = self.path / DATA / "08_reporting" / "retrain" / "outcome.json"
        return dict(json.loads(path.read_text()))

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.server.uri, self.server.uri)

    def aliases(self) -> dict[str, int]:
        """Versions by alias; {} before anything was registered."""
        found = self.client.search_registered_models(f"name = '{NAME}'")
        return {a: int(v) for model in found for a, v in model.aliases.items()}

    def versions(self) -> list[ModelVersion]:
        """All versions, oldest first."""
        found = self.client.search_model_versions(f"name = '{NAME}'")
        return sorted(found, key=lambda version: int(version.version))

    def runs(self) -> list[Run]:
        """All MLflow runs, the oldest first."""
        experiment = self.client.get_experiment_by_name("versatune")
        assert experiment is not None
        return list(
            self.client.search_runs(
                [experiment.experiment_id], order_by=["attributes.start_time ASC"]
            )
        )

    def runs_of(self, told: Told) -> list[Run]:
        """The MLflow runs that began in a night."""
        return [run for run in self.runs() if told.began <= run.info.start_time <= told.ended]

    def losses(self) -> dict[int, float]:
        """Mean over the domains of the held-out loss of every challenger, by retraining.

        Nats per token on all held-out rows of the last night's data: the same for all.
        """
        from versatune.artifacts import FolderRef
        from versatune.evaluation.config import EvaluateParams
        from versatune.evaluation.measure import evaluate_checkpoint
        from versatune.evaluation.results import HELD_OUT, LOSS
        from versatune.modeling.checkpoints import CheckpointRef

        last = DATA / "05_model_input" / "retrain"
        found = {}
        with contextlib.chdir(self.path):
            store = FolderRef.load(last)
            for folder in sorted(self.kept.iterdir()):
                rows = evaluate_checkpoint(
                    CheckpointRef.of_folder(folder),
                    model=folder.name,
                    store=store,
                    tasks=(),
                    params=EvaluateParams(),
                    folder=self.kept.parent / "measured",
                ).rows
                of_model = rows[(rows["task"] == HELD_OUT) & (rows["metric"] == LOSS)]
                found[int(folder.name)] = float(of_model["value"].mean())
        return found

    def disk(self) -> tuple[dict[str, int], int]:
        """Bytes by part of the project, and the number of files of weights."""
        parts = {
            "data": [self.path / DATA / f"{n}" for n in ("03_primary", "05_model_input")],
            "models": [self.path / DATA / "06_models"],
            "mlflow": [self.path / "mlflow"],
            "scratch": [self._scratch],
        }
        sizes = {name: sum(map(_size, folders)) for name, folders in parts.items()}
        return sizes, len(list(self.path.rglob("*.safetensors")))

    def _keep_challengers(self) -> None:
        for manifest in self.path.glob(f"{DATA}/06_models/retrain/*/challenger/manifest.json"):
            target = self.kept / manifest.parts[-3]
            if not target.exists():
                shutil.copytree(manifest.parent, target)

    def _configure(self) -> None:
        sources = {
            domain: {"sources": [{"path": f"data/incoming/{domain}/*.jsonl"}], "evaluation": []}
            for domain in self._rows
        }
        tracking = {
            "server": {"mlflow_tracking_uri": self.server.uri},
            "tracking": {"experiment": {"create_experiment_kwargs": {"artifact_location": None}}},
        }
        files = {
            **OVERLAY,
            "parameters_domains.yml": {"domains": sources},
            "mlflow.yml": tracking,
        }
        for name, content in files.items():
            (self.path / "conf" / "test" / name).write_text(yaml.safe_dump(content))


def _rows(root: Path, folder: Path) -> dict[str, Iterator[str]]:
    """Instruction rows of every domain, as lines, from the embedded facts."""
    from versatune.demo.build import build, describe
    from versatune.demo.config import SampleParams
    from versatune.work import make_folder

    source = root / "data" / "01_raw" / "samples"
    made = describe(make_folder(build(SampleParams(source=source, documents=50)), folder))
    return {
        domain: iter(Path(path).read_text(encoding="utf-8").splitlines(keepends=True))
        for domain, path in made["instructions"].items()
    }


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _now() -> int:
    return int(time.time() * 1000)
