"""The mixture pipeline on a hand-filled catalog, and its parameters in every environment."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from kedro.io import DataCatalog, DatasetError
from kedro.io.memory_dataset import MemoryDataset
from kedro.runner import SequentialRunner

from versatune.artifacts import FolderRef
from versatune.data.config import Domains
from versatune.errors import VersatuneError
from versatune.io import FolderDataset, FoldersDataset, StoreDataset
from versatune.modeling.checkpoints import CheckpointRef
from versatune.pipelines.mixture import create_pipeline
from versatune.pipelines.mixture.nodes import add_own_rows, compute_mixture
from versatune.pipelines.mixture.params import MixtureParams
from versatune.training import TrainParams
from versatune.training.reference_config import ReferenceParams
from versatune.work import ParallelParams, Piece, WorkFolder, make_folder

ONE = ParallelParams(workers=1)

KNOWN = {
    "domains": {
        "code": {"share": 0.5, "low": 0.4, "high": 0.6},
        "law": {"share": 0.3, "low": 0.2, "high": 0.4},
        "medicine": {"share": 0.2, "low": 0.1, "high": 0.3},
    }
}


NO_OWN = Domains.model_validate(
    {
        name: {"description": name, "sources": [{"path": f"{name}.jsonl"}]}
        for name in ("law", "medicine", "code")
    }
)


def mixture(store: FolderRef, **params: Any) -> dict[str, Any]:
    return compute_mixture(KNOWN, store, MixtureParams(**params))


def test_a_run_measures_references_and_makes_the_mixture(
    tmp_path: Path, tiny_checkpoint: CheckpointRef, tiny_store: FolderRef
) -> None:
    references = ReferenceParams(
        max_steps=2,
        eval_steps=1,
        train={
            "max_length": 64,
            "per_device_train_batch_size": 1,
            "heldout_rows_per_domain": 4,
            "learning_rate": 1e-2,
        },
    )
    values = {
        "tokenized": tiny_store,
        "own_texts": FolderRef(path=tmp_path, fingerprint="none"),
        "params:domains": NO_OWN,
        "base_model": tiny_checkpoint.model_dump(mode="json"),
        "knowledge_distribution": KNOWN,
        "params:references": references,
        "params:train": TrainParams(),
        "params:mixture": MixtureParams(),
        "params:parallel": ONE,
    }
    catalog = DataCatalog(
        {
            **{name: MemoryDataset(value) for name, value in values.items()},
            "training_rows": StoreDataset(
                filepath=str(tmp_path / "rows.json"), path=str(tmp_path / "joined")
            ),
            "reference_rows": FolderDataset(filepath=str(tmp_path / "rows")),
            "reference_runs": FoldersDataset(filepath=str(tmp_path / "runs")),
        }
    )
    outputs = SequentialRunner().run(create_pipeline(), catalog)
    assert catalog.load("training_rows") == tiny_store
    losses = outputs["reference_losses"].load()["domains"]
    assert list(losses) == ["law", "medicine", "code"]
    assert all(0 < d["nats_per_token"] < 7 and d["bits_per_byte"] > 0 for d in losses.values())
    made = outputs["initial_mixture"].load()
    assert (made["strategy"], made["unit"]) == ("constant", "supervised_tokens")
    assert made["weights"] == pytest.approx({"law": 0.3, "medicine": 0.2, "code": 0.5})
    assert list(made["weights"]) == ["law", "medicine", "code"]


def test_own_texts_become_rows_of_the_domains_that_ask_for_them(
    tmp_path: Path, tiny_checkpoint: CheckpointRef, tiny_store: FolderRef
) -> None:
    """Through the catalog's entry; a store that was made again since is not taken for the old."""
    work = WorkFolder.open(tmp_path / "own", {"own": "texts"})
    line = '{{"index": {0}, "domain": "law", "split": "train", "ended": true, "confidence": 1,'
    lines = [line.format(i) + f' "text": "court map {i}"}}' for i in range(3)]
    (work.path / "texts.jsonl").write_text("\n".join(lines) + "\n")
    own = work.seal(trained_on=["law"])
    asked = Domains.model_validate(
        {
            "law": {"description": "law", "sources": [{"path": "law.jsonl"}, {"self": True}]},
            "code": {"description": "code", "sources": [{"path": "code.jsonl"}]},
        }
    )
    store = tiny_store.model_copy(
        update={"metadata": {**tiny_store.metadata, "data_fingerprint": "d"}}
    )
    base = tiny_checkpoint.model_dump(mode="json")
    entry = StoreDataset(filepath=str(tmp_path / "rows.json"), path=str(tmp_path / "joined"))
    with pytest.raises(DatasetError):
        entry.load()
    piece = add_own_rows(store, own, base, asked)
    assert isinstance(piece, Piece)
    entry.save(piece)
    found = entry.load()
    assert found.path == tmp_path / "joined"
    assert (
        found.metadata["train"]["law"]["rows"] == 43 and found.metadata["own"]["law"]["train"] == 3
    )
    assert found.metadata["train"]["code"] == tiny_store.metadata["train"]["code"]
    make_folder(Piece({"another": 1}, lambda _: {}), tmp_path / "joined")
    with pytest.raises(DatasetError, match="made again"):
        entry.load()
    assert not entry.exists()
    entry.save(tiny_store)
    assert entry.load() == tiny_store
    with pytest.raises(VersatuneError, match="run the probe pipeline again"):
        add_own_rows(store, FolderRef(path=tmp_path, fingerprint="x"), base, asked)


def test_references_can_be_switched_off(
    tiny_checkpoint: CheckpointRef, tiny_store: FolderRef, tmp_path: Path
) -> None:
    from versatune.pipelines.mixture.nodes import reference_losses, reference_rows, reference_runs

    params = ReferenceParams(mode="none")
    base = tiny_checkpoint.model_dump(mode="json")
    rows = make_folder(reference_rows(tiny_store, base, params), tmp_path / "rows")
    assert reference_runs(tiny_store, rows, base, params, TrainParams(), ONE).pieces == {}
    found = reference_losses(tiny_store, rows, base, params, TrainParams(), {})
    assert {d["nats_per_token"] for d in found["domains"].values()} == {None}


def test_static_starts_by_hand(tiny_store: FolderRef) -> None:
    even = dict.fromkeys(["law", "medicine", "code"], 1 / 3)
    assert mixture(tiny_store, strategy={"name": "uniform"})["weights"] == pytest.approx(even)
    inverse = mixture(tiny_store, strategy={"name": "inverse"})["weights"]
    assert inverse == pytest.approx({"law": 0.35, "medicine": 0.4, "code": 0.25})
    rows = mixture(tiny_store, strategy={"name": "proportional"}, unit="rows")["weights"]
    assert rows == pytest.approx({"law": 40 / 125, "medicine": 25 / 125, "code": 60 / 125})
    for unit in ("tokens", "supervised_tokens"):
        found = mixture(tiny_store, strategy={"name": "proportional"}, unit=unit)["weights"]
        counts = {name: tiny_store.metadata["train"][name][unit] for name in found}
        total = sum(counts.values())
        assert found == pytest.approx({name: n / total for name, n in counts.items()})
    assert mixture(tiny_store, strategy={"name": "proportional"})["weights"] == found
    custom = {"legal": 0.2, "medicine": 0.8, "code": 0.0}
    found = mixture(tiny_store, strategy={"name": "custom", "weights": custom})["weights"]
    assert found == pytest.approx({"law": 0.2, "medicine": 0.8, "code": 0.0})


def test_a_domain_that_was_not_detected_still_starts_with_the_floor(tiny_store: FolderRef) -> None:
    known = {"domains": {"law": {"share": 1.0}, "medicine": {"share": 0.0}, "code": {"share": 0.0}}}
    made = compute_mixture(known, tiny_store, MixtureParams(floor=0.05))
    assert made["weights"] == pytest.approx({"law": 0.9, "medicine": 0.05, "code": 0.05})


DOUBTED = {**KNOWN, "doubts": {"shift": "sampled texts are unlike the labelled rows."}}


@pytest.mark.parametrize("asked", ["constant", "inverse"])
@pytest.mark.parametrize("instead", ["proportional", "uniform"])
def test_shares_in_doubt_do_not_start_a_training(
    tiny_store: FolderRef, caplog: pytest.LogCaptureFixture, asked: str, instead: str
) -> None:
    params = MixtureParams.model_validate({"strategy": {"name": asked}, "on_doubt": instead})
    made = compute_mixture(DOUBTED, tiny_store, params)
    assert made["weights"] == mixture(tiny_store, strategy={"name": instead})["weights"]
    assert (made["strategy"], made["asked"], made["on_doubt"]) == (instead, asked, instead)
    assert "because its checks failed (shift)" in caplog.text


def test_doubt_can_be_overruled_or_end_the_run(tiny_store: FolderRef) -> None:
    assert MixtureParams().on_doubt == "proportional"
    kept = compute_mixture(DOUBTED, tiny_store, MixtureParams(on_doubt="keep"))
    assert kept == {**mixture(tiny_store), "on_doubt": "keep"}
    with pytest.raises(VersatuneError, match=r"mixture.on_doubt is 'stop'.*unlike the labelled"):
        compute_mixture(DOUBTED, tiny_store, MixtureParams(on_doubt="stop"))


def test_shares_that_are_not_the_probes_stay_as_they_are(tiny_store: FolderRef) -> None:
    asked = {"strategy": {"name": "uniform"}, "on_doubt": "stop"}
    made = compute_mixture(DOUBTED, tiny_store, MixtureParams.model_validate(asked))
    assert made["weights"] == mixture(tiny_store, strategy={"name": "uniform"})["weights"]
    assert "asked" not in made


def test_a_distribution_of_other_domains_is_refused(tiny_store: FolderRef) -> None:
    known = {"domains": {"law": {"share": 0.5}, "art": {"share": 0.5}}}
    with pytest.raises(VersatuneError, match=r"law, art.*law, medicine, code.*run the probe again"):
        compute_mixture(known, tiny_store, MixtureParams())


def test_adaptive_strategies_are_no_way_to_start() -> None:
    with pytest.raises(ValueError, match="foster"):
        MixtureParams.model_validate({"strategy": {"name": "foster"}})


def test_catalog_has_the_outputs(project_root: Path) -> None:
    entries = yaml.safe_load((project_root / "conf/base/catalog_mixture.yml").read_text())
    layers = {name: entry["metadata"]["kedro-viz"]["layer"] for name, entry in entries.items()}
    assert set(layers.values()) == {"model_input"}
    assert create_pipeline().all_outputs() == set(entries)
