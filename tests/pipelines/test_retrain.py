"""Retraining on a tiny real model, a real registry, and every interruption."""

import errno
import gc
import itertools
import json
import multiprocessing
import os
import pkgutil
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner
from pydantic import ValidationError

from tests.faults.forks import IMPORTS
from tests.helpers.tiny import BYTES, save_tiny
from tests.helpers.tracked import tracked
from versatune import tracking
from versatune.data.config import CleanParams, Domains, TokenizeParams
from versatune.errors import VersatuneError
from versatune.evaluation.config import EvaluateParams
from versatune.io import FolderDataset, FoldersDataset, PlaceDataset
from versatune.io.kept import KeptJSONDataset, KeptParquetDataset
from versatune.modeling.checkpoints import CheckpointRef
from versatune.pipelines.retrain import create_pipeline
from versatune.retraining import champions
from versatune.retraining.config import LimitParams, PromotionParams, RetrainParams
from versatune.retraining.run_store import RunStore
from versatune.tracking import registry
from versatune.tracking.spool import Spool
from versatune.training.config import TrainParams
from versatune.work import ParallelParams

NAME = "nightly"
WORDS = {
    "law": "court contract judge treat return of why",
    "medicine": "drug dose heart what is treat",
    "code": "loop list string map return in to",
}
LOOSE = PromotionParams(
    evidence="estimate",
    limits={"heldout_loss": LimitParams(tolerance=0.9, evidence="estimate")},
)


@dataclass
class House:
    """A project's folders and parameters, and a retraining in them."""

    root: Path
    base: CheckpointRef
    retrain: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    items: bool = False
    """Whether there are evaluation files."""

    def add(self, domain: str, name: str, seed: int, rows: int = 30) -> Path:
        """A file of instruction rows made of the domain's words."""
        rng, words = np.random.default_rng(seed), WORDS[domain].split()
        path = self.root / "raw" / domain / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            {
                "prompt": f"why {' '.join(rng.choice(words, 3))} {seed} {row}",
                "completion": " ".join(words),
            }
            for row in range(rows)
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    def catalog(self) -> DataCatalog:
        domains = Domains.model_validate(
            {
                name: {
                    "description": name,
                    "sources": [{"path": str(self.root / "raw" / name / "*.jsonl")}],
                    "evaluation": [{"path": str(self.root / f"{name}-items.jsonl")}]
                    if self.items
                    else [],
                }
                for name in WORDS
            }
        )
        blocks = {
            "domains": domains,
            "ingest": CleanParams(
                seed=0, validation_fraction=0.2,
                near_duplicate_threshold=None, min_validation_rows=4,
            ),
            "tokenize": TokenizeParams(max_length=64, num_workers=1),
            "train": TrainParams(
                rounds=1, steps_per_round=4, max_length=64, per_device_train_batch_size=2,
                learning_rate=3e-3, heldout_rows_per_domain=4, loss_guard=None, **self.train,
            ),
            "evaluate": EvaluateParams(),
            "parallel": ParallelParams(),
            "retrain": RetrainParams(
                example="a", **{"model_name": NAME, "promotion": LOOSE, **self.retrain},
            ),
        }  # fmt: skip
        return DataCatalog(
            {
                "sample_summary": MemoryDataset({}),
                "base_model": MemoryDataset(self.base.model_dump(mode="json")),
                **{f"params:{name}": MemoryDataset(value) for name, value in blocks.items()},
                "retrain_runs": PlaceDataset(filepath=str(self.runs.folder)),
                "retrain_knowledge": PlaceDataset(filepath=str(self.root / "knowledge.json")),
                "retrain_evaluations": PlaceDataset(filepath=str(self.root / "evaluations")),
                "retrain_clean": FolderDataset(filepath=str(self.root / "cleaned")),
                "retrain_tokenized": FolderDataset(filepath=str(self.root / "tokenized")),
                "retrain_challengers": FoldersDataset(
                    filepath=str(self.runs.folder), deletable=True
                ),
                **{
                    f"retrain_{name}": KeptJSONDataset(filepath=str(self.root / f"{name}.json"))
                    for name in ("models", "mixture", "challenger", "verdict")
                },
                **{
                    f"retrain_{name}": KeptParquetDataset(filepath=str(self.root / f"{name}.pq"))
                    for name in ("evaluation", "evaluation_items", "changes")
                },
            }
        )

    def run(self) -> dict[str, Any]:
        """One run of the pipeline; its outcome."""
        outputs = SequentialRunner().run(create_pipeline(), self.catalog())
        return outputs["retrain_outcome"].load()

    @property
    def runs(self) -> RunStore:
        return RunStore(self.root / "retrain")

    def models(self) -> list[str]:
        """Retrainings whose challenger's weights are on the disk."""
        found = self.runs.folder.glob("*/challenger/model.safetensors")
        return sorted(path.parts[-3] for path in found)


@pytest.fixture
def house(tmp_path: Path, tiny_checkpoint: CheckpointRef, store: None) -> House:  # noqa: ARG001
    house = House(tmp_path, tiny_checkpoint)
    for seed, domain in enumerate(WORDS):
        house.add(domain, "first", seed)
        item = {"question": "what is heart", "choices": ["drug", "loop"], "answer": 0}
        (tmp_path / f"{domain}-items.jsonl").write_text(json.dumps(item) + "\n")
    return house


def aliases() -> dict[str, int]:
    found = mlflow.MlflowClient().get_registered_model(NAME).aliases
    return {alias: int(number) for alias, number in found.items()}


def test_retrainings_with_and_without_news(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    house.items = True
    first = house.run()
    assert (first["decision"], first["version"], first["number"]) == ("promoted", 1, 1)
    assert any("held-out loss: better by" in reason for reason in first["reasons"])

    def work(*_: Any, **__: Any) -> None:
        pytest.fail("nothing was new")

    with monkeypatch.context() as patch:
        patch.setattr("versatune.training.api._train_in", work)
        patch.setattr("versatune.evaluation.measure._measure", work)
        patch.setattr("versatune.data.clean._clean", work)
        patch.setattr("versatune.data.tokenize._tokenize", work)
        with caplog.at_level("INFO"):
            assert house.run() == first
    finished = house.runs.current.finished
    assert f"Nothing new since retraining 1 ({finished})." in caplog.messages

    house.add("law", "second", 7)
    second = house.run()
    assert second["number"] == 2 and second["version"] == 2
    tags = registry.champion(NAME).tags
    assert tags["new"] == "law: 1 file new (second.jsonl)"
    assert tags["started_from"] == tags["measured_against"] == "nightly version 1"
    assert tags["decision"] == "promoted" and float(tags["change.heldout_loss"]) > 0
    assert tags["data_fingerprint"] and "change.accuracy" in tags
    assert aliases() == {"champion": 2, "previous_champion": 1}


def test_a_worse_challenger_stays_challenger_and_says_why(house: House) -> None:
    house.run()
    house.retrain = {"learning_rate": 1.0}
    outcome = house.run()
    assert outcome["decision"] == "not promoted"
    assert any("worse by" in reason for reason in outcome["reasons"])
    assert aliases() == {"champion": 1, "challenger": 2}
    version = mlflow.MlflowClient().get_model_version_by_alias(NAME, "challenger")
    assert "worse by" in version.tags["reasons"]
    assert "retrain.learning_rate: null -> 1.0" in version.tags["new"]


def test_from_the_base_model_when_asked(house: House) -> None:
    house.run()
    house.retrain = {"start_from": "base"}
    house.run()
    tags = mlflow.MlflowClient().get_model_version(NAME, "2").tags
    assert tags["started_from"] == "tiny" and tags["measured_against"] == "nightly version 1"


def test_bad_data_fails_the_retraining_and_the_next_good_one_goes_on(house: House) -> None:
    house.run()
    path = house.add("law", "second", 7)
    path.write_text("no JSON\n" * 40)
    with pytest.raises(Exception, match=r"second\.jsonl"):
        house.run()
    assert aliases() == {"champion": 1}
    house.add("law", "second", 7)
    assert house.run()["decision"] == "promoted"
    path.unlink()
    path.write_text("no JSON\n" * 40)
    with pytest.raises(Exception, match=r"second\.jsonl"):
        house.run()
    house.add("law", "second", 7)
    assert house.run()["version"] == 2, "back to what the last finished retraining saw: nothing new"


def test_a_store_that_is_away_postpones_and_the_next_run_hands_in(
    house: House, tmp_path: Path
) -> None:
    house.run()
    house.add("law", "second", 7)
    with tracked("local-1", Spool(tmp_path / "spool.jsonl")):
        away = house.run()
        assert away["decision"].startswith("promotion postponed")
        house.add("code", "second", 8)
        assert house.run()["decision"].startswith("promotion postponed")
    assert aliases() == {"champion": 1}
    assert [w.number for w in house.runs.state.waiting] == [2, 3]
    outcome = house.run()
    assert outcome["decision"] == "promoted" and outcome["number"] == 3
    assert not house.runs.state.waiting
    assert aliases() == {"champion": 3, "previous_champion": 2}
    assert house.runs.kept(2, "outcome")["decision"] == "promoted"


def test_a_full_disk_of_the_store_fails_the_retraining_and_the_next_run_goes_on(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would look at a postponed promotion that no retraining can ever carry out."""

    def full(*_: Any) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    house.run()
    house.add("law", "second", 7)
    with monkeypatch.context() as patch:
        patch.setattr(tracking, "store_model", full)
        for _ in range(2):
            with pytest.raises(VersatuneError, match=r"No space left.*then run again"):
                house.run()
    assert aliases() == {"champion": 1}
    assert house.run()["decision"] == "promoted"
    assert aliases() == {"champion": 2, "previous_champion": 1}


@pytest.mark.parametrize("name", ["it's", 'a"b', "a`b", "a/b", "a:b"])
def test_a_name_that_mlflow_cannot_search_for_is_refused(house: House, name: str) -> None:
    house.retrain = {"model_name": name}
    with pytest.raises(ValidationError, match="model_name"):
        house.catalog()


def test_models_do_not_pile_up_while_the_store_is_away(house: House, tmp_path: Path) -> None:
    """A retraining each day and no MLflow for long: the coming champion and its line are kept."""
    house.retrain = {"keep_last": 1}
    house.run()
    with tracked("local-1", Spool(tmp_path / "spool.jsonl")):
        for number in range(2, 7):
            house.add("law", f"file {number}", 5 + number)
            assert house.run()["decision"].startswith("promotion postponed")
            assert len(house.models()) <= 4
    assert house.models() == ["0001", "0004", "0005", "0006"]
    assert [w.number for w in house.runs.state.waiting] == [4, 5, 6]
    outcome = house.run()
    assert (outcome["number"], outcome["decision"]) == (6, "promoted")
    assert registry.champion(NAME).tags["retraining"] == "6"
    assert aliases() == {"champion": 4, "previous_champion": 3}
    decisions = [house.runs.kept(number, "outcome")["decision"] for number in range(2, 7)]
    assert [d.startswith("never registered") for d in decisions] == [True] * 2 + [False] * 3
    assert decisions[2:] == ["promoted"] * 3
    assert registry.rollback(NAME)[1].tags["retraining"] == "5"


def test_what_is_handed_in_late_is_told_by_the_run_that_does_it(
    house: House, tmp_path: Path
) -> None:
    spool = Spool(tmp_path / "spool.jsonl")
    with tracked("local-1", Spool(tmp_path / "lost.jsonl")):
        assert house.run()["version"] is None
    with mlflow.start_run() as run, tracked(run.info.run_id, spool):
        house.run()
    tags = mlflow.get_run(run.info.run_id).data.tags
    assert tags["retraining.new"] == "nothing" and "retraining.version" not in tags
    assert tags["retraining.handed_in.1"] == "promoted, nightly version 1"
    house.add("law", "second", 7)
    with mlflow.start_run() as run, tracked(run.info.run_id, spool):
        house.run()
    tags = mlflow.get_run(run.info.run_id).data.tags
    assert (tags["strategy"], tags["base_model"]) == ("foster", "tiny")
    assert tags["retraining.decision"] == "promoted"
    assert tags["retraining.version"] == "nightly version 2"
    assert not [name for name in tags if name.startswith("retraining.handed_in")]


def test_another_vocabulary_than_the_champions_is_refused_before_training(
    house: House, tmp_path: Path
) -> None:
    """Its loss on ids that mean nothing to it would make any challenger look better."""
    house.run()
    house.base = save_tiny(tmp_path / "other", vocab_size=BYTES)
    with pytest.raises(VersatuneError, match=r"(?s)nightly version 1 .*retrain\.model_name"):
        house.run()
    assert aliases() == {"champion": 1} and house.models() == ["0001"]


def test_an_adapter_alone_is_refused_before_anything_is_done(house: House) -> None:
    house.train = {"lora": {"merge": False}}
    with pytest.raises(VersatuneError, match=r"train\.lora\.merge"):
        house.run()
    assert not house.runs.folder.exists()


def test_without_its_state_retraining_goes_on_with_the_next_number(house: House) -> None:
    house.run()
    house.add("law", "second", 7)
    house.run()
    (house.runs.folder / "state.json").unlink()
    outcome = house.run()
    assert (outcome["number"], outcome["version"], outcome["decision"]) == (3, 3, "promoted")
    assert registry.champion(NAME).tags["measured_against"] == "nightly version 2"
    assert aliases() == {"champion": 3, "previous_champion": 2}
    assert "0002" in house.models()


def test_a_rollback_is_respected(house: House) -> None:
    house.run()
    house.add("law", "second", 7)
    house.run()
    registry.rollback(NAME)
    assert aliases() == {"champion": 1}
    house.add("law", "third", 8)
    house.run()
    assert registry.champion(NAME).tags["measured_against"] == "nightly version 1"


def test_old_challengers_are_deleted_and_what_serves_is_kept(house: House) -> None:
    house.run()
    house.retrain = {"keep_last": 1}
    house.add("law", "second", 7)
    house.run()
    for rate in (1.0, 1.1, 1.2):
        house.retrain = {"keep_last": 1, "learning_rate": rate}
        assert house.run()["decision"] == "not promoted"
    assert aliases() == {"champion": 2, "previous_champion": 1, "challenger": 5}
    assert house.models() == ["0001", "0002", "0005"]
    assert len(list((house.root / "artifacts").rglob("model.safetensors"))) == 3
    assert len(list(house.runs.folder.glob("*/verdict.json"))) == 5
    assert not (house.root / "evaluations").exists()
    shutil.rmtree(house.runs.folder / "0002" / "challenger")
    house.retrain = {"keep_last": 1}
    house.add("law", "third", 9)
    assert house.run()["version"] == 6, "the champion's files come from MLflow"
    assert not list((house.runs.folder / "champions").iterdir()), "and go when it serves no more"


def test_retrainings_that_fail_one_after_the_other_leave_one_model_behind(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise VersatuneError("no room for the evaluation")

    house.run()
    with monkeypatch.context() as patch:
        patch.setattr("versatune.evaluation.measure._measure", fail)
        for seed in (7, 8, 9):
            house.add("law", f"file {seed}", seed)
            with pytest.raises(VersatuneError, match="no room"):
                house.run()
    assert house.models() == ["0001", "0004"]
    assert house.run()["decision"] == "promoted"
    assert house.models() == ["0001", "0004"]


ALIAS = "mlflow.MlflowClient.set_registered_model_alias"
POINTS = [
    ("after", "versatune.training.api._train_in", 1),
    ("after", "versatune.evaluation.measure._measure", 1),
    ("before", "versatune.tracking.registry.register", 1),
    *(("before", ALIAS, call) for call in (1, 2, 3)),
    ("after", ALIAS, 3),
    ("after", "versatune.tracking.registry.promote", 1),
]
"""The aliases in their order: challenger, previous_champion, champion."""


@pytest.mark.parametrize(
    ("when", "name", "call"), POINTS, ids=[f"{w} {n.rpartition('.')[2]} {c}" for w, n, c in POINTS]
)
def test_killed_anywhere_the_champion_serves_and_the_next_run_ends_alike(
    house: House, when: str, name: str, call: int
) -> None:
    """The champion before is the base model itself, registered by hand."""
    assert registry.promote(registry.register(NAME, "by hand", house.base, {}, "a"), over=None)
    child = _context.Process(
        target=killed_retraining, args=(house, mlflow.get_tracking_uri(), when, name, call)
    )
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    moved = (when, name) == ("after", ALIAS) or name.endswith("promote")
    assert aliases()["champion"] == (2 if moved else 1)
    assert ("previous_champion" in aliases()) == (moved or call == 3)
    mlflow.transformers.load_model(f"models:/{NAME}@champion", return_type="components")
    outcome = house.run()
    assert outcome["version"] == 2 and outcome["decision"] == "promoted"
    assert aliases() == {"champion": 2, "previous_champion": 1}
    assert not house.runs.state.waiting


_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(IMPORTS)


def killed_retraining(house: House, uri: str, when: str, name: str, call: int) -> None:
    """A retraining in this process, which gets SIGKILL at the n-th call of a function."""
    owner, _, attribute = name.rpartition(".")
    function, calls = pkgutil.resolve_name(name), itertools.count(1)

    def dying(*arguments: Any, **options: Any) -> Any:
        last = next(calls) == call
        if last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **options)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(pkgutil.resolve_name(owner), attribute, dying)
    gc.freeze()  # trainings collect garbage: what was imported is none
    torch.set_num_threads(1)
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("t")
    house.run()


def test_a_waiting_challenger_whose_files_are_gone_blocks_nothing(
    house: House, tmp_path: Path
) -> None:
    with tracked("local-1", Spool(tmp_path / "spool.jsonl")):
        house.run()
    shutil.rmtree(house.runs.folder / "0001" / "challenger")
    assert house.run()["decision"].startswith("lost:")
    assert champions.hand_in(house.runs, RetrainParams())


def test_a_damaged_state_is_named(house: House) -> None:
    house.run()
    (house.runs.folder / "state.json").write_text('{"run": 3}')
    with pytest.raises(VersatuneError, match=r"state\.json is damaged"):
        house.run()
