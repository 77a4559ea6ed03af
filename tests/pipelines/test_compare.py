"""The compare pipeline on tiny real models, with a hand-filled catalog."""

import math
import pickle
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner
from kedro_datasets.pandas import ParquetDataset

from versatune.artifacts import FolderRef
from versatune.comparing.config import PER_RUN, CompareParams
from versatune.comparing.runs import ComparisonSetup, Plan, Run, pieces
from versatune.data.config import Domains
from versatune.errors import VersatuneError
from versatune.evaluation.config import EvaluateParams
from versatune.io import FoldersDataset, PlaceDataset
from versatune.modeling.checkpoints import CheckpointRef
from versatune.pipelines.compare import create_pipeline
from versatune.pipelines.compare.nodes import plan_runs
from versatune.training.config import TrainParams
from versatune.work import ParallelParams

DOMAINS = ("law", "medicine", "code")
TABLES = ("comparison", "comparison_history", "comparison_summary")

START: dict[str, Any] = {
    "initial_mixture": {"weights": {"law": 0.5, "medicine": 0.3, "code": 0.2}},
    "reference_losses": {
        "mode": "measure",
        "rows_per_domain": 4,
        "domains": {d: {"nats_per_token": 4.0} for d in DOMAINS},
    },
    "knowledge_distribution": {
        "domains": {"law": {"share": 0.5}, "medicine": {"share": 0.3}, "code": {"share": 0.2}}
    },
}


def settings(**changes: Any) -> CompareParams:
    values: dict[str, Any] = {
        "strategies": {"uniform": {}, "foster": {"sigma": 0.5}},
        "seeds": (0, 1),
        "train": {"rounds": 2, "steps_per_round": 2, "heldout_rows_per_domain": 4},
    }
    return CompareParams.model_validate(values | changes)


ONE = ParallelParams(workers=1)
TWO = ParallelParams(workers=2, cpus=1, gpus=0)


def run(
    base: CheckpointRef,
    store: FolderRef,
    params: CompareParams,
    tmp_path: Path,
    parallel: ParallelParams = ONE,
    **evaluate: Any,
) -> dict[str, pd.DataFrame]:
    domains = Domains.model_validate(
        {name: {"description": name, "sources": [{"path": "unused.jsonl"}]} for name in DOMAINS}
    )
    train = TrainParams(max_length=64, per_device_train_batch_size=2, learning_rate=1e-2)
    inputs = {
        **START,
        "base_model": base.model_dump(mode="json"),
        "parameters": {"compare": params.model_dump(mode="json")},
        "training_rows": store,
        "params:domains": domains,
        "params:evaluate": EvaluateParams(**evaluate),
        "params:train": train,
        "params:compare": params,
        "params:parallel": parallel,
    }
    tmp_path.mkdir(exist_ok=True)
    tables = {n: ParquetDataset(filepath=str(tmp_path / f"{n}.parquet")) for n in TABLES}
    folders = {"comparison_runs": FoldersDataset(filepath=str(tmp_path / "compare"))}
    place = {"evaluations": PlaceDataset(filepath=str(tmp_path / "evaluations"))}
    catalog = DataCatalog(
        {n: MemoryDataset(value) for n, value in inputs.items()} | tables | folders | place
    )
    found = SequentialRunner().run(create_pipeline(), catalog)
    (tmp_path / "comparison.html").write_text(found["comparison_report"].load(), encoding="utf-8")
    return {name: catalog.load(name) for name in TABLES}


@pytest.mark.slow
def test_strategies_times_seeds_are_paired_and_done_once(
    tiny_checkpoint: CheckpointRef,
    tiny_store: FolderRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    params = settings()
    found = run(tiny_checkpoint, tiny_store, params, tmp_path)
    page = (tmp_path / "comparison.html").read_text(encoding="utf-8")
    assert page.count('class="plot"') == 2, "losses and shares; there is no accuracy to draw"
    assert "No verdict: it takes 3 seeds" in page
    rows = found["comparison"]
    runs = rows[["strategy", "seed"]].drop_duplicates().to_records(index=False).tolist()
    assert runs == [(s, n) for s in ("uniform", "foster", "proportional") for n in (0, 1)]
    losses = rows[rows["metric"] == "nats_per_token"]
    assert len(losses) == len(runs) * len(DOMAINS)
    assert (losses["change"] == losses["value"] - losses["base"]).all()
    assert losses.groupby("domain")["base"].nunique().eq(1).all()

    summary = found["comparison_summary"].set_index(["metric", "measure", "domain", "strategy"])
    law = losses[losses["domain"] == "law"].set_index(["strategy", "seed"])["value"]
    by_hand = (law["foster", 0] - law["uniform", 0] + law["foster", 1] - law["uniform", 1]) / 2
    line = summary.loc[("nats_per_token", "value", "law", "foster")]
    assert line["difference"] == pytest.approx(by_hand) and line["n_seeds"] == 2
    assert line[["low", "high", "verdict"]].isna().all(), "two seeds get no interval and no verdict"
    history = found["comparison_history"]
    uniform = history[(history["strategy"] == "uniform")]
    assert uniform["weight"].dropna().sub(1 / 3).abs().max() < 1e-9
    before = history[history["round"] == 0].groupby("domain")["validation_loss"]
    assert before.count().tolist() == [len(runs)] * len(DOMAINS)
    assert before.nunique().tolist() == [1, 1, 1], "runs of all seeds are measured on the same rows"

    assert not list((tmp_path / "compare").rglob("*.safetensors"))

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a finished run was trained again")

    monkeypatch.setattr("versatune.comparing.runs.train", refuse)
    monkeypatch.setattr("versatune.evaluation.measure.load_model", refuse)
    again = run(tiny_checkpoint, tiny_store, params, tmp_path, batch_tokens=99, seed=7)
    for name, table in found.items():
        pd.testing.assert_frame_equal(again[name], table)


@pytest.mark.slow
def test_an_interrupted_comparison_goes_on(
    tiny_checkpoint: CheckpointRef,
    tiny_store: FolderRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second training is killed; the next run does that one, keeps the first, and ends with the
    table of a comparison that nobody disturbed."""
    import versatune.comparing.runs as contest

    real, calls = contest.train, []

    def dies_at_the_second(*args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs["folder"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(contest, "train", dies_at_the_second)
    params = settings(strategies={"proportional": {}}, baseline="proportional")
    with pytest.raises(KeyboardInterrupt):
        run(tiny_checkpoint, tiny_store, params, tmp_path)
    found = run(tiny_checkpoint, tiny_store, params, tmp_path)
    assert [folder.parent.name for folder in calls] == ["seed_0", "seed_1", "seed_1"]
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    again = run(tiny_checkpoint, tiny_store, params, undisturbed)
    assert len(calls) == 5
    for name in ("comparison", "comparison_summary"):
        pd.testing.assert_frame_equal(again[name], found[name])


@pytest.mark.slow
def test_two_at_a_time_end_with_the_same_tables(
    tiny_checkpoint: CheckpointRef, tiny_store: FolderRef, tmp_path: Path
) -> None:
    """Two strategies that are one: their runs end with the same checkpoint at the same time."""
    params = settings(strategies={"uniform": {}, "even": {"name": "uniform"}}, seeds=(0,))
    one, two = (
        run(tiny_checkpoint, tiny_store, params, tmp_path / name, parallel)
        for name, parallel in (
            ("one", ParallelParams(workers=1, cpus=1)),
            ("two", ParallelParams(workers=2, cpus=1, gpus=0)),
        )
    )
    for name in ("comparison", "comparison_summary"):
        pd.testing.assert_frame_equal(one[name], two[name])


def plan(tiny_store: FolderRef, params: CompareParams, **changes: Any) -> dict[str, Any]:
    start = START | changes
    return plan_runs(tiny_store, *start.values(), params, TrainParams(rounds=7, learning_rate=0.5))


def test_a_plan_gives_every_run_the_same_budget(tiny_store: FolderRef) -> None:
    variants = {"uniform": {}, "slow": {"name": "foster", "sigma": 0.1}, "foster": {}}
    planned = plan(tiny_store, settings(strategies=variants))
    asked = [(r["seed"], r["strategy"], r["train"]["strategy"]["name"]) for r in planned["runs"]]
    kinds = {"uniform": "uniform", "slow": "foster", "foster": "foster"}
    kinds |= {"proportional": "proportional"}
    assert asked == [(seed, *which) for seed in (0, 1) for which in kinds.items()]
    alike = [
        {name: value for name, value in run["train"].items() if name not in PER_RUN}
        for run in planned["runs"]
    ]
    assert all(settings_of == alike[0] for settings_of in alike)
    assert (alike[0]["rounds"], alike[0]["steps_per_round"]) == (2, 2)
    assert alike[0]["learning_rate"] == 0.5
    names = [Run.model_validate(run).name for run in planned["runs"]]
    assert len(set(names)) == len(names) == 8


def test_a_block_of_training_keeps_what_the_comparison_does_not_change(
    tiny_store: FolderRef,
) -> None:
    def lora(train: dict[str, Any] | None, changes: Any) -> Any:
        params = settings(train={"lora": changes})
        found = plan_runs(tiny_store, *START.values(), params, TrainParams(lora=train))
        return found["runs"][0]["train"]["lora"]

    own = {"r": 4, "alpha": 8, "target_modules": ["q_proj"]}
    found = lora(own, {"r": 32})
    assert (found["r"], found["alpha"], found["target_modules"]) == (32, 8, ["q_proj"])
    assert lora(None, {"r": 32})["alpha"] == 32
    assert lora(own, None) is None


def test_a_strategy_without_its_references_is_refused_before_training(
    tiny_store: FolderRef,
) -> None:
    nothing = {"domains": {d: {"nats_per_token": None} for d in DOMAINS}}
    with pytest.raises(VersatuneError, match=r"compare\.strategies\.foster needs reference losses"):
        plan(tiny_store, settings(), reference_losses=nothing)


@pytest.mark.parametrize(
    ("rows", "strategies", "warned"),
    [(4, {"uniform": {}, "foster": {}}, False), (8, {"uniform": {}, "foster": {}}, True),
     (8, {"uniform": {}}, False)],
)  # fmt: skip
def test_references_of_other_rows_are_said(
    tiny_store: FolderRef, caplog: pytest.LogCaptureFixture,
    rows: int, strategies: dict[str, Any], warned: bool,
) -> None:  # fmt: skip
    train = {"heldout_rows_per_domain": rows}
    plan(tiny_store, settings(strategies=strategies, train=train))
    assert [r.levelname for r in caplog.records] == ["WARNING"] * warned
    assert not warned or "4 held-out rows a domain, training on 8" in caplog.text


def test_an_unknown_target_is_refused(tiny_store: FolderRef) -> None:
    with pytest.raises(VersatuneError, match=r"compare\.target: there is no domain 'medicne'"):
        plan(tiny_store, settings(target="medicne"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "constant"}, "baseline 'constant' is not one of the strategies"),
        ({"seeds": (1, 1)}, "a seed is given twice"),
        ({"strategies": {"a/b": {"name": "uniform"}}}, "names a folder"),
        ({"train": {"seed": 3}}, "seed: set by the comparison"),
        ({"train": {"folder": "a"}}, "folder: parameters no longer name output paths"),
        ({"folder": "a"}, "folder: parameters no longer name output paths"),
        ({"train": {"learnin_rate": 1e-3}}, "learnin_rate"),
        ({"strategies": {"uniform": {}, "fostr": {}}}, "fostr"),
    ],
)
def test_parameters_that_make_no_comparison(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**changes)


def test_the_stratified_mix_is_always_in_it() -> None:
    assert "proportional" in settings().strategies
    named = settings(strategies={"uniform": {}, "strata": {"name": "proportional"}})
    assert list(named.strategies) == ["uniform", "strata"]
    assert "foster" not in settings(strategies={"uniform": {}, "foster": None}).strategies
    assert math.isclose(settings().strategies["foster"].sigma, 0.5)  # type: ignore[union-attr]


def test_runs_can_be_made_by_another_process(
    tiny_store: FolderRef, tiny_checkpoint: CheckpointRef, tmp_path: Path
) -> None:
    setup = ComparisonSetup(
        store=tiny_store,
        base=tiny_checkpoint,
        tasks=(),
        evaluate=EvaluateParams(rows_per_domain=2),
        evaluations=tmp_path,
        keep_models=False,
    )
    planned = Plan.model_validate(plan(tiny_store, settings(strategies={"uniform": {}})))
    made = pieces(planned, setup)
    strategies = ("uniform", "proportional")
    assert list(made) == [f"{s}/seed_{seed}/result" for seed in (0, 1) for s in strategies]
    for piece in made.values():
        assert pickle.loads(pickle.dumps(piece)).fingerprint == piece.fingerprint
