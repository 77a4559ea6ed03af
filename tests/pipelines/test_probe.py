"""The probe pipeline as a slice: project parameters, the project's catalog entries, tiny model."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from kedro.io import DataCatalog
from kedro.io.memory_dataset import MemoryDataset
from kedro.runner import SequentialRunner
from kedro_datasets.json import JSONDataset
from kedro_datasets.pandas import ParquetDataset

from tests.helpers.hostile_server import chat, garbage, serving
from tests.helpers.probe_rows import WORDS, clean_rows
from versatune.artifacts import FolderRef
from versatune.data.config import CleanParams, Domains
from versatune.io import FolderDataset, PlaceDataset
from versatune.io.secret import SecretDataset
from versatune.modeling.checkpoints import CheckpointRef
from versatune.pipelines.probe import create_pipeline
from versatune.probing.config import ProbeParams
from versatune.samplers.local import ModelSampler


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> FolderRef:
    return clean_rows(tmp_path_factory.mktemp("rows") / "clean")


def settings(root: Path, **changed) -> ProbeParams:
    """The values of conf/base under those of conf/test, as Kedro merges them."""
    merged: dict = {}
    for environment in ("base", "test"):
        text = (root / f"conf/{environment}/parameters_probe.yml").read_text()
        merge(merged, yaml.safe_load(text)["probe"])
    merge(merged, {"seed": 0, "sampling": {"dtype": "float32"}, **changed})
    return ProbeParams.model_validate(merged)


def merge(into: dict, given: dict) -> None:
    for key, value in given.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


def catalog(folder: Path, base: CheckpointRef, rows: FolderRef, params: ProbeParams) -> DataCatalog:
    domains = Domains.model_validate(
        {d: {"description": f"About {d}.", "sources": [{"path": f"{d}.jsonl"}]} for d in WORDS}
    )
    values = {
        "base_model": base.model_dump(mode="json"),
        "clean_data": rows,
        "params:domains": domains,
        "params:probe": params,
        "params:ingest": CleanParams(seed=0),
    }
    probe = folder / "probe"
    return DataCatalog(
        {
            **{name: MemoryDataset(value) for name, value in values.items()},
            "judge_key": SecretDataset(credentials={"api_key": "key-of-the-judge"}),
            "audit_key": SecretDataset(credentials={"api_key": "key-of-the-auditor"}),
            "sampler_key": SecretDataset(credentials={"api_key": "key-of-the-sampler"}),
            **{n: FolderDataset(filepath=str(probe / n)) for n in FOLDERS},
            "kept_answers": PlaceDataset(filepath=str(probe / "answers")),
            "knowledge_distribution": JSONDataset(filepath=str(folder / "knowledge.json")),
            "own_texts_report": JSONDataset(filepath=str(folder / "own_texts_report.json")),
            "judged_samples": ParquetDataset(filepath=str(folder / "judged.parquet")),
        }
    )


FOLDERS = ("judge", "samples", "judgements", "auditor", "audit", "own_texts")


def test_every_dataset_is_in_the_catalog_in_a_layer(project_root):
    entries = yaml.safe_load((project_root / "conf/base/catalog_probe.yml").read_text())
    for name in {*create_pipeline().all_outputs(), "judge_key", "audit_key", "sampler_key"}:
        assert entries[name]["metadata"]["kedro-viz"]["layer"], name


def test_the_pipeline_detects_and_a_second_run_does_no_work(
    tmp_path, project_root, tiny_checkpoint, rows, monkeypatch
):
    params = settings(project_root)
    datasets = catalog(tmp_path, tiny_checkpoint, rows, params)
    SequentialRunner().run(create_pipeline(), datasets)
    found = datasets.load("knowledge_distribution")
    assert list(found["domains"]) == list(WORDS)
    assert sum(d["share"] for d in found["domains"].values()) == pytest.approx(1)
    assert found["n_samples"] == 64
    assert found["base_model"] == "tiny"
    assert found["samples"]["begin_with"] == "<s>"
    assert found["domains"]["law"]["data_share"] == pytest.approx(1 / 3)
    table = datasets.load("judged_samples")
    assert isinstance(table, pd.DataFrame)
    assert len(table) == 64
    assert {"text", "domain", "confidence", "flag"} <= set(table)
    own = datasets.load("own_texts_report")
    kept = sum(sum(entry["own"].values()) for entry in own["domains"].values())
    assert own["samples"] == 64 == kept + sum(own["rejected"].values())
    assert not any(entry["trained_on"] for entry in own["domains"].values())
    monkeypatch.setattr(ModelSampler, "batch", None)
    SequentialRunner().run(create_pipeline(), datasets)
    assert datasets.load("knowledge_distribution") == found
    assert datasets.load("own_texts_report") == own


def test_a_known_distribution_is_refused_for_other_domains(
    tmp_path, project_root, tiny_checkpoint, rows
):
    params = settings(project_root, known_distribution="LLaMA-2-7B")
    datasets = catalog(tmp_path, tiny_checkpoint, rows, params)
    with pytest.raises(Exception, match="set it to null"):
        SequentialRunner().run(create_pipeline(), datasets)


def test_a_known_distribution_skips_the_probe_and_keeps_what_was_sampled(
    tmp_path, project_root, tiny_checkpoint, rows, monkeypatch
):
    from versatune.probing import known

    monkeypatch.setattr(known, "DOMAINS", tuple(WORDS))
    monkeypatch.setitem(known.KNOWN, "LLaMA-2-7B", (50, 30, 20))
    params = settings(project_root, known_distribution="LLaMA-2-7B")
    datasets = catalog(tmp_path, tiny_checkpoint, rows, params)
    monkeypatch.setattr(ModelSampler, "batch", None)
    SequentialRunner().run(create_pipeline(), datasets)
    found = datasets.load("knowledge_distribution")
    assert found["domains"]["law"]["share"] == 0.5
    assert found["base_model"] == "LLaMA-2-7B"
    assert len(datasets.load("judged_samples")) == 0
    assert datasets.load("own_texts_report")["domains"] == {}


def test_each_server_is_sent_its_own_key_alone(tmp_path, project_root, tiny_checkpoint, rows):
    def says(number: int):
        choice = {"index": 0, "text": f"court {number}", "finish_reason": "stop", "logprobs": None}
        body = {"id": "x", "object": "text_completion", "created": 0, "model": "m"}
        return garbage(json.dumps({**body, "choices": [choice]}).encode())

    answer = chat('{"law": 0.6, "medicine": 0.3, "other": 0.1}')
    with serving(says) as sampled, serving(lambda _: answer) as asked:
        params = settings(
            project_root,
            sampling={"source": "server", "server": {"url": sampled.url, "model": "m"}},
            judge={
                "kind": "endpoint",
                "endpoint": {
                    "labelled_per_domain": 10,
                    "server": {"url": asked.url, "model": "m"},
                },
            },
        )
        datasets = catalog(tmp_path, tiny_checkpoint, rows, params)
        SequentialRunner().run(create_pipeline(), datasets)
    assert asked.authorisations == {"Bearer key-of-the-judge"}
    assert sampled.authorisations == {"Bearer key-of-the-sampler"}


def test_a_second_judge_is_asked_about_some_samples_with_its_own_key(
    tmp_path, project_root, tiny_checkpoint, rows
):
    answer = chat('{"law": 1.0, "medicine": 0.0, "other": 0.0}')
    with serving(lambda _: answer) as asked:
        audit = {
            "n": 200,
            "judge": {
                "kind": "endpoint",
                "endpoint": {
                    "labelled_per_domain": 10,
                    "server": {"url": asked.url, "model": "m"},
                },
            },
        }
        wide = {"correction": "none", "bootstrap": 100}
        rounds = {"samples_per_round": 128, "max_rounds": 1, "min_rounds": 1}
        changed = {"estimate": wide, "rounds": rounds}
        params = settings(project_root, audit=audit, **changed)
        datasets = catalog(tmp_path, tiny_checkpoint, rows, params)
        SequentialRunner().run(create_pipeline(), datasets)
    assert asked.authorisations == {"Bearer key-of-the-auditor"}
    found = datasets.load("knowledge_distribution")
    assert found["audit"]["name"] == "m at an endpoint"
    assert found["audit"]["answered"] == found["audit"]["n"] <= 128
    assert found["domains"]["law"]["share"] > found["domains"]["law"]["raw_share"]
    assert found["domains"]["law"]["share"] > 0.9
    assert datasets.load("judged_samples")["second"].notna().sum() == found["audit"]["n"]
    # without the audit the first judge's shares are there again, and nothing was lost
    params = settings(project_root, **changed)
    datasets = catalog(tmp_path, tiny_checkpoint, rows, params)
    SequentialRunner().run(create_pipeline(), datasets)
    again = datasets.load("knowledge_distribution")
    assert again["audit"] is None
    assert again["domains"]["law"]["share"] == pytest.approx(found["domains"]["law"]["raw_share"])


def test_the_key_shows_nowhere(capsys):
    dataset = SecretDataset(credentials={"api_key": "sk-secret-7"})
    print(dataset, dataset._describe(), dataset.load(), repr(dataset.load()))  # noqa: T201
    assert "sk-secret-7" not in capsys.readouterr().out
    assert dataset.load().get_secret_value() == "sk-secret-7"
