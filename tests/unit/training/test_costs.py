"""What a training takes, against the planner's own rounds and by hand."""

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.references import made_up_run
from versatune.artifacts import FolderRef
from versatune.data.store import TokenizedSplit
from versatune.mixing.planner import Planner
from versatune.modeling.checkpoints import CheckpointRef
from versatune.training import costs
from versatune.training.config import TrainParams
from versatune.training.throughput import Work, cost_of

WEIGHTS = np.array([0.5, 0.3, 0.2])


def params(**values: object) -> TrainParams:
    usual = {"rounds": 4, "steps_per_round": 25, "max_length": 64, "heldout_rows_per_domain": 6}
    return TrainParams.model_validate(usual | values)


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("unit", ["rows", "tokens", "supervised_tokens"])
def test_passes_are_those_that_the_planner_makes(
    tiny_store: FolderRef, unit: str, packing: bool
) -> None:
    split, given = TokenizedSplit.load(tiny_store, "train"), params(unit=unit, packing=packing)
    budget = costs.Budget(given, split, np.full(3, 1 / 3))
    planner = Planner(
        split.domains, split.starts, split.lengths, split.supervised, given, unit=unit, seed=0
    )  # type: ignore[arg-type]
    plan = planner.plan_round(WEIGHTS, planner.initial_state(), budget.rows)
    assert budget.rows == 4 * 25 * 4
    passes = budget.passes(WEIGHTS)
    np.testing.assert_allclose(passes, planner.epochs_seen(plan.state), rtol=0.05)
    spent = budget.spent(passes)
    assert spent.tokens == pytest.approx(plan.n_tokens, rel=0.05)
    assert spent.supervised == pytest.approx(plan.supervised.sum(), rel=0.05)


def test_a_share_of_nothing_is_never_seen(tiny_store: FolderRef) -> None:
    split = TokenizedSplit.load(tiny_store, "train")
    budget = costs.Budget(params(), split, WEIGHTS)
    assert budget.passes(np.array([1.0, 0.0, 0.0]))[1:].tolist() == [0.0, 0.0]


def test_rows_of_a_step_count_every_process(tmp_path: Path) -> None:
    assert costs.rows_per_step(params(gradient_accumulation_steps=2)) == 8
    assert costs.rows_per_step(params(launcher={"processes": 3})) == 12
    file = tmp_path / "accelerate.yaml"
    file.write_text("distributed_type: FSDP\nnum_processes: 8\n")
    assert costs.rows_per_step(params(launcher={"config_file": file})) == 32


def test_the_speed_is_that_of_the_reference_runs_without_measuring(tmp_path: Path) -> None:
    runs = {name: made_up_run(tmp_path / name, s) for name, s in (("law", 1.5), ("code", 2.5))}
    speed = costs.speed_of(runs, "the runs")
    assert speed is not None
    assert speed.tokens_per_second == pytest.approx(400 / (2 * 1.0 + 2 * 2.0))
    assert costs.seconds_of(runs) == pytest.approx(1 + 3 + 1 + 5)
    assert costs.speed_of({}, "the runs") is None


def test_time_counts_the_measurements_and_shares_by_processes(tiny_store: FolderRef) -> None:
    steering = TokenizedSplit.load(tiny_store, "steering")
    all_rows = params(heldout_rows_per_domain=None)
    forward = float(steering.lengths.sum()) * 5 / 3
    speed = costs.Speed(10.0, "a guess")
    alone = costs.seconds_to_train(all_rows, steering, 1000.0, speed)
    assert alone == pytest.approx((1000 + forward) / 10)
    four = all_rows.changed({"launcher": {"processes": 4}})
    assert costs.seconds_to_train(four, steering, 1000.0, speed) == pytest.approx(alone / 4)


def test_flops_and_memory_are_counted_from_the_models_configuration(
    tiny_checkpoint: CheckpointRef,
) -> None:
    from versatune.modeling.checkpoints import load_model

    spent = Work(tokens=100.0, supervised=40.0, squares=2000.0)
    found = costs.needs(tiny_checkpoint, params(), spent)
    model = load_model(tiny_checkpoint)
    model.requires_grad_(True)
    assert found["flops"] == pytest.approx(cost_of(model).flops(spent))
    assert found["memory"]["weights"] == 4 * sum(p.numel() for p in model.parameters())
    assert found["device_bytes"] > 2**28
    by_device = costs.needs(tiny_checkpoint, params(dtype="auto", bf16="auto"), spent)
    assert by_device["flops"] == found["flops"]


def test_a_model_that_cannot_be_counted_leaves_it_open(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no_such_model"}')
    base = CheckpointRef(path=tmp_path, name="odd", fingerprint="f")
    found = costs.needs(base, params(), Work())
    assert (found["flops"], found["memory"], found["disk"]) == (None, None, None)
