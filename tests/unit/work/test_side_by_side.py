"""Trainings made side by side: the same files however many at a time, and after a kill."""

import json
import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import pytest

from tests.helpers.tracked import tracked
from tests.unit.work import calls
from versatune import tracking
from versatune.artifacts import MANIFEST, FolderRef
from versatune.comparing.runs import Plan, Run, described
from versatune.io import FoldersDataset
from versatune.modeling.checkpoints import CheckpointRef
from versatune.tracking.spool import Spool
from versatune.training import TrainParams
from versatune.training.api import piece_of
from versatune.training.job import EVENTS, HISTORY, STEPS, MixtureInputs, Training
from versatune.training.reference import reference_runs
from versatune.training.reference_config import ReferenceParams
from versatune.work import ParallelParams, Pieces, make_pieces
from versatune.work.pieces import Began, Ended, Failed

TRAIN = TrainParams(
    rounds=2,
    steps_per_round=2,
    heldout_rows_per_domain=4,
    learning_rate=1e-2,
    max_length=64,
    per_device_train_batch_size=2,
)
ONE = ParallelParams(workers=1, cpus=1, gpus=0)
TWO = ParallelParams(workers=2, cpus=1, gpus=0)
TIMINGS = ("seconds", "measurement_seconds", "tokens_per_second", "peak_memory_bytes")


def contents(folder: Path) -> dict[str, Any]:
    """All that a training wrote, but for the time and memory it took and the digests of those."""
    found: dict[str, Any] = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (MANIFEST, EVENTS, STEPS)
    }
    history = json.loads(found[HISTORY])
    history.pop("peak_memory_bytes")
    for row in history["rows"]:
        for name in TIMINGS:
            row.pop(name)
    return {**found, HISTORY: history}


def references(store: FolderRef, base: CheckpointRef) -> dict[str, Any]:
    rows = store.model_copy(update={"metadata": {"skipped": True}})
    params = ReferenceParams(max_steps=4, eval_steps=2)
    pieces = reference_runs(store, rows, base, params, TRAIN)
    return {name: pieces[name] for name in ("medicine", "law")}


@pytest.mark.slow
def test_references_are_the_same_however_many_are_made_at_a_time(
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "versatune")
    pieces = references(tiny_store, tiny_checkpoint)
    for name, parallel in (("one", ONE), ("two", TWO)):
        FoldersDataset(filepath=str(tmp_path / name)).save(Pieces(pieces, parallel))
    assert "2 tasks, 2 at a time, 1 core each" in caplog.text
    made = [FoldersDataset(filepath=str(tmp_path / name)).load() for name in ("one", "two")]
    assert [list(refs) for refs in made] == [["medicine", "law"]] * 2
    for name in pieces:
        one, two = (refs[name] for refs in made)
        assert one.fingerprint == two.fingerprint == pieces[name].fingerprint
        assert contents(one.path) == contents(two.path)
    assert contents(made[0]["law"].path) != contents(made[0]["medicine"].path)


@pytest.mark.slow
@pytest.mark.parametrize("save_model", [False, True])
def test_a_training_whose_worker_is_killed_ends_the_same(
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    save_model: bool,
) -> None:
    """A reference begins anew, a training goes on from its checkpoint; neither ends otherwise."""
    weights = {"law": 0.2, "medicine": 0.3, "code": 0.5}
    trainings = {
        name: Training(
            store=tiny_store,
            base=tiny_checkpoint,
            params=TRAIN.model_copy(update={"seed": seed}),
            initial_weights=weights if save_model else None,
            domain=None if save_model else name,
            save_model=save_model,
        )
        for seed, name in enumerate(("law", "code"))
    }
    pieces = {name: piece_of(training) for name, training in trainings.items()}
    killed = {
        name: replace(piece, make=partial(calls.killed_in_training, trainings[name]))
        for name, piece in pieces.items()
    }
    whole = make_pieces(Pieces(pieces, ONE), tmp_path / "whole")
    again = make_pieces(Pieces(killed, TWO), tmp_path / "killed")
    assert caplog.text.count("its process ended with code -9; it continues where it stopped") == 2
    for name in pieces:
        assert contents(whole[name].path) == contents(again[name].path)


def test_what_is_there_needs_no_process(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path, caplog: Any
) -> None:
    pieces = references(tiny_store, tiny_checkpoint)
    made = make_pieces(Pieces(pieces, ONE), tmp_path)
    caplog.set_level(logging.INFO, "versatune")
    caplog.clear()
    assert make_pieces(Pieces(pieces, TWO), tmp_path) == made
    assert "at a time" not in caplog.text


def test_runs_that_are_made_elsewhere_have_a_run_of_mlflow_each(
    store: None,  # noqa: ARG001
    tmp_path: Path,
) -> None:
    plan = Plan(
        runs=tuple(Run(strategy=name, seed=1, train=TRAIN) for name in "abcde"),
        start=MixtureInputs(initial_weights={}),
    )
    known = {name.partition("/")[0]: about for name, about in described(plan).items()}
    first = {"round": 0, "step": 0, "metrics": {"loss": 3.0}}
    second = {"round": 1, "step": 2, "metrics": {"loss": 2.0}}
    parent = mlflow.start_run().info.run_id
    spool = Spool(tmp_path / "spool.jsonl")
    with (
        tracked(parent, spool),
        pytest.raises(KeyError),
        tracking.child_runs(known) as on_event,
    ):
        for name in ("a", "b"):
            on_event(name, Began(whole=False))
        for name in ("a", "b", "a"):
            on_event(name, first)
        on_event("a", second)
        on_event("d", Began(whole=True))
        on_event("d", Ended({"final": 1.0}))
        on_event("a", Began(whole=False))  # its process was replaced
        on_event("a", first)
        on_event("a", Ended({"final": 2.0}))
        on_event("c", Began(whole=False))
        on_event("c", Failed())
        raise KeyError
    mlflow.end_run()
    children = {
        run.info.run_name: run
        for run in mlflow.search_runs(output_format="list")
        if run.info.run_id != parent
    }
    status = {name: run.info.status for name, run in children.items()}
    assert status == {
        "a seed 1": "FINISHED",
        "b seed 1": "KILLED",
        "c seed 1": "FAILED",
        "d seed 1": "FINISHED",
    }
    assert all(run.data.tags["mlflow.parentRunId"] == parent for run in children.values())
    assert "versatune.reused" in children["d seed 1"].data.tags
    assert children["a seed 1"].data.metrics == {"loss": 2.0, "final": 2.0}
    assert children["a seed 1"].data.params["strategy.label"] == "a"
    history = mlflow.MlflowClient().get_metric_history(children["a seed 1"].info.run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(0, 3.0), (2, 2.0)]
    assert not mlflow.get_run(parent).data.metrics
