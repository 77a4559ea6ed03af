"""The configurations in README and documentation, run as they are written there."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from kedro.config import OmegaConfigLoader
from omegaconf import OmegaConf

from tests.faults.forks import kedro_run
from tests.helpers.support import copy_project
from versatune.artifacts import FolderRef
from versatune.modeling.checkpoints import CheckpointRef
from versatune.settings import CONFIG_LOADER_ARGS

pytestmark = pytest.mark.slow


SMALL = "train.rounds=1,train.steps_per_round=2,references.max_steps=2"
"""Sizes in the README and the defaults are for real models."""


def kedro(project: Path, *arguments: str) -> str:
    """What a run up to the trained model prints, which must succeed."""
    done = kedro_run(project, "--pipelines", "ingest,probe,mixture,train", *arguments)
    assert done.code == 0, done.output[-4000:]
    return done.output


def make_small(project: Path) -> None:
    """The test environment's sizes as defaults."""
    for small in (project / "conf" / "test").glob("parameters_*.yml"):
        default = project / "conf" / "base" / small.name
        OmegaConf.save(OmegaConf.merge(OmegaConf.load(default), OmegaConf.load(small)), default)


def test_your_model_your_data(
    project_root: Path, tmp_path: Path, tiny_checkpoint: CheckpointRef
) -> None:
    """After a run on the embedded sample, as docs/own-data.md has it.

    Only the places of model and files are changed, the length to what the model takes, and sizes.
    """
    text = (project_root / "docs" / "own-data.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(base_model:.*?)```", text, re.DOTALL)
    data = tmp_path / "data"
    places = {
        "HuggingFaceTB/SmolLM2-135M-Instruct": str(tiny_checkpoint.path),
        "/data/": f"{data}/",
        "max_length: 1024": "max_length: 256",
    }
    for place, here in places.items():
        assert place in example
        example = example.replace(place, here)
    project = copy_project(project_root, tmp_path / "project")
    make_small(project)
    kedro(project)
    trained = project / "data/06_models/trained"
    sample = FolderRef.load(trained)
    (project / "conf" / "local" / "parameters.yml").write_text(example)
    (data / "law").mkdir(parents=True)
    rows = [{"instruction": f"What is {n}?", "output": f"It is {n * n}."} for n in range(60)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (data / "law" / "a.jsonl").write_text(lines)
    pd.DataFrame(
        {"question": [f"Who owns {n}?" for n in range(30)], "answer": ["The court."] * 30}
    ).to_csv(data / "more.csv", index=False)
    pd.DataFrame(rows).assign(instruction=[f"Weigh {n} moles." for n in range(60)]).to_parquet(
        data / "chemistry.parquet"
    )
    (data / "law_questions.jsonl").write_text(
        json.dumps({"question": "Who judges?", "choices": ["a court", "a cat"], "answer": 0}) + "\n"
    )
    printed = kedro(project, "--params", SMALL)
    report = json.loads((project / "data/08_reporting/ingest_report.json").read_text())
    assert {name: entry["read"] for name, entry in report["domains"].items()} == {
        "law": 90,
        "chemistry": 60,
    }
    assert all(entry["train_rows"] > 10 for entry in report["domains"].values())
    assert report["max_length"] == 256
    mine = FolderRef.load(trained)
    assert mine.metadata["steps"] == 2 and set(mine.metadata["validation_loss"]) == {
        "law",
        "chemistry",
    }
    assert FolderRef.load(trained.with_name("trained.previous")) == sample.model_copy(
        update={"path": trained.with_name("trained.previous")}
    )
    assert "was made with other inputs" in printed


def test_the_readmes_own_model_and_data(
    project_root: Path, tmp_path: Path, tiny_checkpoint: CheckpointRef
) -> None:
    """The README's YAML reads rows that lie where it says; only places are changed."""
    text = (project_root / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(base_model:.*?)```", text, re.DOTALL)
    data = tmp_path / "data"
    places = {
        "HuggingFaceTB/SmolLM2-135M-Instruct": str(tiny_checkpoint.path),
        "/data/": f"{data}/",
    }
    for place, here in places.items():
        assert place in example
        example = example.replace(place, here)
    project = copy_project(project_root, tmp_path / "project")
    (project / "conf" / "local" / "parameters.yml").write_text(example)
    (data / "law").mkdir(parents=True)
    rows = [{"prompt": f"Who pays fee {n}?", "completion": f"Clerk {n * n}."} for n in range(40)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (data / "law" / "a.jsonl").write_text(lines)
    chemistry = [
        {"text": f"Element {n} melts at {n * n} degrees, says table {n}."} for n in range(30)
    ]
    pd.DataFrame(chemistry).to_parquet(data / "chemistry.parquet")
    done = kedro_run(project, "--pipeline", "ingest")
    assert done.code == 0, done.output[-4000:]
    report = json.loads((project / "data/08_reporting/ingest_report.json").read_text())
    assert {name: entry["read"] for name, entry in report["domains"].items()} == {
        "law": 40,
        "chemistry": 30,
    }
    assert all(entry["train_rows"] > 10 for entry in report["domains"].values())


def test_the_trained_model_is_loaded_as_the_documentation_says(project_root: Path) -> None:
    """The folder it names is where the project puts it."""
    text = (project_root / "docs" / "sample.md").read_text(encoding="utf-8")
    (named,) = set(re.findall(r'from_pretrained\("(.*)"\)', text))
    loader = OmegaConfigLoader(str(project_root / "conf"), **CONFIG_LOADER_ARGS)
    assert loader["catalog"]["trained_model"]["filepath"] == named
