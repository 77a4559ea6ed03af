"""Bits that flip and files that end early, in everything a run keeps: named, never used."""

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.conftest import DATA, results
from tests.faults.forks import Fault, kedro_run
from versatune.artifacts import with_checksum

pytestmark = pytest.mark.slow

Copy = Callable[[Path], Path]

KEPT = (
    "02_intermediate/sample/corpus.jsonl",
    "03_primary/clean/train/data-00000.arrow",
    "05_model_input/tokenized/train/data-00000.arrow",
    "04_feature/probe/judge/weights.safetensors",
    "04_feature/probe/samples/wave_00000.jsonl",
    "04_feature/probe/judgements/wave_00001.safetensors",
    "05_model_input/references/law/history.json",
    "06_models/base/model.safetensors",
    "06_models/trained/model.safetensors",
    "07_model_output/evaluations/*/law-law/items.parquet",
)


def flip(path: Path) -> None:
    """Turn one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def test_whatever_is_damaged_is_named_and_made_again(
    copy: Copy, tmp_path: Path, undisturbed: Path
) -> None:
    project = copy(tmp_path / "project")
    files = [f for pattern in KEPT for f in sorted((project / DATA).glob(pattern))]
    assert len(files) >= len(KEPT)
    for number, file in enumerate(files):
        (flip if number % 2 else truncate)(file)
    forged = project / DATA / "05_model_input/references/code/manifest.json"
    fact = '"steps": '
    assert fact in forged.read_text()
    forged.write_text(forged.read_text().replace(fact, f"{fact}1"))
    done = kedro_run(project, "--env", "test")
    assert done.code == 0, done.output[-3000:]
    printed = " ".join(done.output.split())
    for file in files:
        assert f"{file.relative_to(project)} was changed or damaged" in printed
    assert f"{forged.relative_to(project)} is damaged" in printed
    assert results(project) == results(undisturbed)


@pytest.mark.parametrize("damage", [flip, truncate])
def test_a_stage_alone_refuses_what_was_damaged(
    copy: Copy, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    project = copy(tmp_path / "project")
    for stage, name in (
        ("probe", "03_primary/clean/train/data-00000.arrow"),
        ("probe", "06_models/base/model.safetensors"),
        ("train", "05_model_input/tokenized/train/data-00000.arrow"),
        ("train", "05_model_input/tokenized/manifest.json"),
        ("train", "06_models/base/model.safetensors"),
        ("evaluate", "06_models/trained/manifest.json"),
        ("evaluate", "06_models/trained/model.safetensors"),
    ):
        file = project / DATA / name
        sound = file.read_bytes()
        damage(file)
        done = kedro_run(project, "--env", "test", "--pipeline", stage)
        file.write_bytes(sound)
        assert done.code == 1, f"{stage} used {name}"
        assert "Traceback" not in done.output
        assert str(DATA / name) in done.error, done.error


def _half_trained(copy: Copy, project: Path) -> Path:
    """A training killed after its last checkpoint; that checkpoint."""
    copy(project)
    trained = project / DATA / "06_models/trained"
    shutil.rmtree(trained)
    moment = Fault(r"models/trained/config\.json")
    done = kedro_run(project, "--env", "test", "--pipeline", "train", fault=moment)
    assert done.code < 0, done.output[-3000:]
    return trained / "checkpoints" / "checkpoint-6"


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "round.json"])
def test_a_damaged_checkpoint_is_left_for_the_one_before(
    copy: Copy, tmp_path: Path, undisturbed: Path, name: str
) -> None:
    last = _half_trained(copy, tmp_path / "project")
    (truncate if name == "round.json" else flip)(last / name)
    done = kedro_run(tmp_path / "project", "--env", "test", "--pipeline", "train")
    assert done.code == 0, done.output[-3000:]
    printed = " ".join(done.output.split())
    assert "checkpoint-6" in printed and name in printed
    assert "continues from data/test/06_models/trained/checkpoints/checkpoint-3" in printed
    assert results(tmp_path / "project") == results(undisturbed)


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (open, (str(self.path), "w"))


def test_a_checkpoint_with_code_in_it_is_refused_whatever_its_checksums_say(
    copy: Copy, tmp_path: Path
) -> None:
    last = _half_trained(copy, tmp_path / "project")
    content = pickle.dumps(Hostile(tmp_path / "ran"))
    (last / "optimizer.pt").write_bytes(content)
    mark = json.loads((last / "round.json").read_text())
    mark["files"]["optimizer.pt"] = hashlib.sha256(content).hexdigest()
    del mark["checksum"]
    (last / "round.json").write_text(json.dumps(with_checksum(mark)))
    done = kedro_run(tmp_path / "project", "--env", "test", "--pipeline", "train")
    assert not (tmp_path / "ran").exists()
    assert done.code == 1 and "Traceback" not in done.output
    assert "checkpoint-6" in done.error and "code" in done.error
