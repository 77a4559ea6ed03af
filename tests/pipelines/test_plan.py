"""The plan pipeline on a hand-filled catalog: with references, and without."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from kedro.framework.project import configure_project, pipelines
from kedro.io import DataCatalog
from kedro.io.memory_dataset import MemoryDataset
from kedro.runner import SequentialRunner
from kedro_datasets.json import JSONDataset
from kedro_datasets.plotly import JSONDataset as FigureDataset

from tests.helpers.laws import law
from tests.helpers.references import made_up_run, references_of
from versatune import tracking
from versatune.artifacts import FolderRef
from versatune.data.config import Domains
from versatune.data.store import TokenizedSplit
from versatune.io import FolderDataset
from versatune.modeling.checkpoints import CheckpointRef, load_model
from versatune.modeling.heldout import heldout_losses
from versatune.pipelines.plan import create_pipeline
from versatune.training import ReferenceParams, TrainParams
from versatune.training.plan import EarlierStages, speed_before
from versatune.training.plan_words import passes_warnings, what_is_missing

NAMES = ("law", "medicine", "code")
TRAIN: dict[str, Any] = {
    "rounds": 2,
    "steps_per_round": 4,
    "max_length": 64,
    "per_device_train_batch_size": 2,
    "learning_rate": 1e-2,
    "heldout_rows_per_domain": 6,
    "strategy": {"name": "foster"},
}
REFERENCES = ReferenceParams()
SHARES = {"law": 0.2, "medicine": 0.3, "code": 0.5}


WIDE = law([0.3, 0.1, 1e-4], b=0.3)
"""A world in which the domains differ widely in what a share of them gains."""


@pytest.fixture(scope="module")
def base(tiny_store: FolderRef, tiny_checkpoint: CheckpointRef) -> dict[str, float]:
    """The base model's losses."""
    split = TokenizedSplit.load(tiny_store, "steering")
    found = heldout_losses(
        load_model(tiny_checkpoint), split, rows_per_domain=6, batch_tokens=None, progress=False
    )
    return {name: h.nats_per_token for name, h in found.items()}


@pytest.fixture(scope="module")
def measured(
    tmp_path_factory: pytest.TempPathFactory, base: dict[str, float]
) -> tuple[dict[str, Any], dict[str, FolderRef]]:
    """``reference_losses`` of the world, and the runs."""
    folder = tmp_path_factory.mktemp("references")
    runs = {name: made_up_run(folder / name, 1.5) for name in NAMES}
    return references_of(WIDE, base), runs


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What MLflow is told."""
    metrics: dict[str, float] = {}
    monkeypatch.setattr(tracking, "log_metrics", metrics.update)
    return metrics


def run(
    folder: Path,
    store: FolderRef,
    base: CheckpointRef,
    losses: dict[str, Any],
    runs: dict[str, FolderRef],
    references: ReferenceParams,
    **train: Any,
) -> tuple[dict[str, Any], Any]:
    """``forecast`` and its figure, as they come back from their files."""
    domains = {d: {"description": d, "sources": [{"path": f"{d}.jsonl"}]} for d in NAMES}
    values = {
        "training_rows": store,
        "base_model": base.model_dump(mode="json"),
        "reference_losses": losses,
        "reference_runs": runs,
        "initial_mixture": {"strategy": "constant", "unit": "tokens", "weights": SHARES},
        "knowledge_distribution": {"domains": {d: {"share": s} for d, s in SHARES.items()}},
        "params:references": references,
        "params:train": TrainParams.model_validate(TRAIN | train),
        "params:domains": Domains.model_validate(domains),
    }
    catalog = DataCatalog(
        {
            **{name: MemoryDataset(value) for name, value in values.items()},
            "base_losses": FolderDataset(filepath=str(folder / "base_losses")),
            "forecast": JSONDataset(filepath=str(folder / "forecast.json")),
            "figure_forecast": FigureDataset(filepath=str(folder / "figure.json")),
        }
    )
    SequentialRunner().run(create_pipeline(), catalog)
    return json.loads((folder / "forecast.json").read_text()), catalog.load("figure_forecast")


def test_with_references_it_forecasts_every_mix(
    tmp_path: Path,
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    base: dict[str, float],
    measured: tuple[dict[str, Any], dict[str, FolderRef]],
    logged: dict[str, float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        made, figure = run(tmp_path, tiny_store, tiny_checkpoint, *measured, REFERENCES)
    assert list(made["strategies"]) == ["uniform", "proportional", "detected", "foster", "best"]
    assert made["strategy"] == "foster" and made["missing"] is None
    assert made["base"] == pytest.approx(base)
    for entry in made["strategies"].values():
        weights = [d["weight"] for d in entry["domains"].values()]
        assert sum(weights) == pytest.approx(1)
        for d in entry["domains"].values():
            assert d["low"] <= d["loss"] <= d["high"] and d["passes"] > 0
    law_and_code = made["strategies"]["best"]["domains"]
    assert law_and_code["law"]["weight"] > 1 / 3 > law_and_code["code"]["weight"]
    room, best = made["headroom"], made["strategies"]["best"]
    # The mix is the same; the room is its mean gain over the laws, not the likeliest law's.
    assert best["gain"] == pytest.approx(room["gain"], rel=0.2) and room["low"] <= room["gain"]
    assert logged["forecast/headroom"] == room["gain"]
    assert (logged["forecast/headroom_low"], logged["forecast/headroom_high"]) == (
        room["low"],
        room["high"],
    )
    takes = made["training"]
    assert takes["steps"] == 8 and 0.7 * 8 * 2 * 64 < takes["tokens"] <= 8 * 2 * 64
    assert takes["measured_on"] == "the reference runs" and takes["seconds"] > 0
    assert takes["tokens_per_second"] == pytest.approx(100)
    assert made["references_seconds"] == pytest.approx(3 * (1.0 + 2 * 1.5))
    assert made["advice"] in caplog.text and "Training takes 8 steps" in caplog.text
    assert len({t.xaxis for t in figure.data}) == 1 + len(NAMES)


def test_the_speed_is_that_of_the_runs_before_unless_they_were_a_proxys(tmp_path: Path) -> None:
    forward = FolderRef(path=tmp_path, fingerprint="f", metadata={"tokens_per_second": 30.0})
    runs = {"mix-0": made_up_run(tmp_path / "mix-0", 1.5)}
    known = EarlierStages({}, runs, forward, SHARES, SHARES)
    own, proxy = ReferenceParams(mode="mixes"), ReferenceParams(mode="mixes", proxy=Path("small"))
    mixes = speed_before(own, known)
    assert mixes is not None and mixes.source == "the runs on mixes"
    assert mixes.tokens_per_second == pytest.approx(100)
    for asked, stages in ((proxy, known), (own, replace(known, runs={}))):
        found = speed_before(asked, stages)
        assert found is not None and found.tokens_per_second == pytest.approx(10)


def test_without_references_it_measures_the_base_and_says_what_it_cannot_tell(
    tmp_path: Path,
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    base: dict[str, float],
    logged: dict[str, float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    nothing = {"nats_per_token": None, "bits_per_byte": None, "step": None}
    losses = {"mode": "none", "domains": dict.fromkeys(NAMES, nothing)}
    with caplog.at_level(logging.INFO):
        made, figure = run(
            tmp_path, tiny_store, tiny_checkpoint, losses, {}, ReferenceParams(mode="none"),
            strategy={"name": "uniform"}, steps_per_round=200, unit="tokens",
        )  # fmt: skip
    assert made["base"] == pytest.approx(base)
    assert made["missing"] == "references.mode is none" and made["headroom"] is None
    assert made["strategy"] == "uniform" and not logged
    assert "No forecast: references.mode is none" in caplog.text
    assert made["training"]["seconds"] > 0 and "forward" in made["training"]["measured_on"]
    assert figure.layout.meta["empty"]
    seen = made["strategies"]["uniform"]["domains"]
    tokens = {name: tiny_store.metadata["train"][name]["tokens"] for name in NAMES}
    each = {name: made["training"]["tokens"] / 3 / tokens[name] for name in NAMES}
    assert {n: d["passes"] for n, d in seen.items()} == pytest.approx(each, rel=1e-3)
    often = ", ".join(f"{name} {passes:.1f}" for name, passes in each.items() if passes > 4)
    assert made["warnings"][0].startswith(f"Rows are seen more than 4 times ({often}). ")


@pytest.mark.parametrize(
    ("rule", "then"),
    [
        ("repeat", "it is repeated anyway"),
        ("redistribute", "its share then goes to the others"),
        ("stop", "training will stop with an error"),
    ],
)
def test_a_cap_that_will_be_passed_is_told_before_training(rule: str, then: str) -> None:
    train = TrainParams.model_validate(TRAIN | {"epoch_cap": {"legal": 2.0}, "on_exhausted": rule})
    seen = {"law": 2.5, "medicine": 3.9, "code": None}
    said = passes_warnings({n: {"passes": p, "weight": 0.1} for n, p in seen.items()}, train)
    assert said == [
        f"law would be seen 2.5 times; its epoch_cap is 2: {then}.",
        "code has a share of 0.100 and no training rows.",
    ]


def test_a_chosen_fixed_mix_stands_beside_the_plain_one_of_its_name(
    tmp_path: Path,
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    measured: tuple[dict[str, Any], dict[str, FolderRef]],
) -> None:
    warm = {"name": "proportional", "temperature": 3.0}
    made, _ = run(
        tmp_path, tiny_store, tiny_checkpoint, *measured, REFERENCES, strategy=warm, unit="tokens"
    )
    counts = np.array([tiny_store.metadata["train"][n]["tokens"] for n in NAMES], dtype=float)
    for label, power in (("proportional", 1.0), ("proportional (chosen)", 1 / 3)):
        weights = [d["weight"] for d in made["strategies"][label]["domains"].values()]
        np.testing.assert_allclose(weights, counts**power / (counts**power).sum())
    assert made["strategy"] == "proportional (chosen)"


def test_expansion_is_forecast_for_its_target_and_counts_whom_it_leaves_behind(
    tmp_path: Path,
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    base: dict[str, float],
) -> None:
    """Rows of code make the others forget, so that its share starts below 0.7."""
    harmful = law([0.02, 0.02, 0.1], nu=[5.0, 5.0, 1e-4])
    made, _ = run(
        tmp_path, tiny_store, tiny_checkpoint, references_of(harmful, base), {}, REFERENCES,
        strategy={"name": "expand", "target": "coding", "rule": "constrained",
                  "explore": 0.0},
        rounds=1, steps_per_round=20,
    )  # fmt: skip
    assert made["targets"] == ["code"] and made["strategy"] == "expand"
    code = made["strategies"]["expand"]["domains"]["code"]
    assert 0.2 <= code["weight"] <= 0.7 and code["loss"] < base["code"]
    assert made["tolerance_broken"] == ["law", "medicine"]
    assert made["training"]["seconds"] is None and made["references_seconds"] is None


@pytest.mark.parametrize(
    ("action", "end"),
    [
        ("stop", "after round 5 of 8."),
        ("rollback", "after round 5 of 8, with the model of round 3."),
        ("none", None),
    ],
)
def test_a_training_that_its_guard_ends_sees_rows_as_often_as_it_trains(
    tmp_path: Path,
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    base: dict[str, float],
    caplog: pytest.LogCaptureFixture,
    action: str,
    end: str | None,
) -> None:
    """Rows count until training ends, whichever round it goes back to; its cost is told in case it
    doesn't end."""
    harmful = law([0.02, 0.02, 0.1], nu=[0.02, 0.02, 1e-4])
    guard = {"action": action, "threshold": 0.018, "patience": 2}
    paper = {
        "rule": "paper",
        "potential_source": "progress",
        "epsilon": 1e6,
        "delta": 0.15,
        "target_cap": 0.95,
    }
    caplog.set_level(logging.INFO)
    made, _ = run(
        tmp_path, tiny_store, tiny_checkpoint, references_of(harmful, base), {}, REFERENCES,
        strategy={"name": "expand", "target": "code", "guard": guard, **paper},
        rounds=8, steps_per_round=40, lr_scheduler_type="constant", warmup_ratio=0.0,
    )  # fmt: skip
    chosen, detected = (made["strategies"][name]["domains"] for name in ("expand", "detected"))
    shares = np.array([[d[n]["weight"] for n in NAMES] for d in (chosen, detected)])
    seen = np.array([[d[n]["passes"] for n in NAMES] for d in (chosen, detected)])
    per_share = (seen / shares).mean(axis=1)
    assert per_share[0] == pytest.approx(per_share[1] * (0.625 if end else 1.0), rel=0.05)
    said = "The guard is forecast to end the training"
    assert f"{said} {end}" in caplog.text if end else said not in caplog.text
    assert made["training"]["steps"] == 320


def test_a_training_that_learns_nothing_has_no_forecast(
    tmp_path: Path,
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    measured: tuple[dict[str, Any], dict[str, FolderRef]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One step of warm-up has a rate of 0."""
    with caplog.at_level(logging.INFO):
        made, _ = run(
            tmp_path, tiny_store, tiny_checkpoint, *measured, REFERENCES,
            rounds=1, steps_per_round=1, warmup_ratio=0.1, strategy={"name": "mixing_law"},
        )  # fmt: skip
    assert made["headroom"] is None and made["tolerance_broken"] is None
    assert "No forecast: every step is warm-up, at a learning rate of 0" in caplog.text
    assert "more training steps, or train.warmup_ratio: 0, leave one that learns" in caplog.text
    shares = [d["weight"] for d in made["strategies"]["mixing_law"]["domains"].values()]
    np.testing.assert_allclose(shares, 1 / 3)  # nothing is tried in the only round


@pytest.mark.parametrize(
    ("asked", "why", "remedy"),
    [
        ({"mode": "none"}, "references.mode is none", "references.mode: mixes makes one"),
        (
            {"mode": "mixes", "budget": 0.1},
            "references.budget leaves no room",
            "more training steps, or references.budget: null, make room for one",
        ),
        (
            {"mode": "measure", "mixes": 0},
            "no run before the training",
            "references.mixes: 2 makes one",
        ),
    ],
)
def test_the_way_to_a_forecast_is_not_what_is_set_already(
    asked: dict[str, Any], why: str, remedy: str
) -> None:
    params = ReferenceParams.model_validate(asked)
    nothing = {"domains": {name: {"curve": []} for name in NAMES}, "mixes": []}
    found = what_is_missing(params, nothing, 10.0)
    assert found is not None and found.why.startswith(why) and found.remedy.startswith(remedy)


def test_the_default_pipeline_trains_when_the_forecast_is_there() -> None:
    configure_project("versatune")
    nodes = {node.name: node for node in pipelines["__default__"].nodes}
    assert "forecast" in nodes["train.train_model"].inputs
    order = list(nodes)
    assert order.index("plan.make_forecast") < order.index("train.train_model")
    alone = {node.name: node for node in pipelines["train"].nodes}
    assert "forecast" not in alone["train.train_model"].inputs


def test_catalog_has_the_outputs(project_root: Path) -> None:
    entries = yaml.safe_load((project_root / "conf/base/catalog_plan.yml").read_text())
    assert create_pipeline().all_outputs() == set(entries)


def test_the_plan_is_of_the_rows_that_train() -> None:
    """A domain with the base model's own texts alone has rows there, and none in `tokenized`."""
    asked = create_pipeline().inputs()
    assert "training_rows" in asked and "tokenized" not in asked
