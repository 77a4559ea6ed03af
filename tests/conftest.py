"""Fixtures that more than one room needs: a tiny real model and a tiny real tokenised store."""

import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import hypothesis
import numpy as np
import pytest

from tests.helpers.tiny import save_tiny
from versatune.artifacts import FolderRef
from versatune.modeling.checkpoints import CheckpointRef
from versatune.work import WorkFolder

hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """What is there before a test is no garbage: each training collects it, and looks at all else.

    Of the time of the tests that train, this is almost half.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> CheckpointRef:
    """A random Llama (2 layers, hidden size 32) with a byte-level BPE tokenizer."""
    return save_tiny(tmp_path_factory.mktemp("checkpoint") / "tiny", vocab_size=400)


@pytest.fixture(scope="session")
def tiny_store(
    tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: CheckpointRef
) -> FolderRef:
    """A tokenised store: 40 / 25 / 60 training rows and 12 each of the held-out rows a domain."""
    import datasets

    rng = np.random.default_rng(0)
    domains = ["law", "medicine", "code"]
    counts = {"train": [40, 25, 60], "steering": [12, 12, 12], "report": [12, 12, 12]}
    work = WorkFolder.open(
        tmp_path_factory.mktemp("store") / "tokenized", {"for": tiny_checkpoint.fingerprint}
    )
    facts: dict = {"domains": domains, "max_length": 64}
    for split, numbers in counts.items():
        rows = [_row(rng, domain, i) for domain, n in enumerate(numbers) for i in range(n)]
        features = datasets.Features(
            input_ids=datasets.List(datasets.Value("int32")),
            labels=datasets.List(datasets.Value("int32")),
            domain=datasets.Value("int32"),
            length=datasets.Value("int32"),
            n_supervised=datasets.Value("int32"),
            n_bytes=datasets.Value("int32"),
            row=datasets.Value("string"),
        )
        datasets.Dataset.from_list(rows, features=features).save_to_disk(str(work.path / split))
        facts[split] = {
            name: {
                "rows": n,
                "tokens": sum(r["length"] for r in rows if r["domain"] == j),
                "supervised_tokens": sum(r["n_supervised"] for r in rows if r["domain"] == j),
            }
            for j, (name, n) in enumerate(zip(domains, numbers, strict=True))
        }
    return work.seal(**facts)


def _row(rng: np.random.Generator, domain: int, number: int) -> dict:
    """A row whose tokens lie mostly in a band of the vocabulary that is the domain's own."""
    length = int(rng.integers(5, 60))
    ids = rng.integers(3 + 100 * domain, 3 + 100 * (domain + 1), size=length).tolist()
    ids[0], ids[-1] = 0, 1
    prompt = max(1, int(length * rng.uniform(0.2, 0.6)))
    return {
        "input_ids": ids,
        "labels": [-100] * prompt + ids[prompt:],
        "domain": domain,
        "length": length,
        "n_supervised": length - prompt,
        "n_bytes": 3 * (length - prompt),
        "row": f"{domain}.jsonl:{number + 1}",
    }


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with nothing in it: making one takes seconds, a copy of it none."""
    import mlflow

    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(tmp_path: Path, empty_store: Path) -> Iterator[None]:
    """MLflow in a store of the test's own, with the experiment ``t``."""
    import mlflow

    before = mlflow.get_tracking_uri()
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.create_experiment("t", artifact_location=(tmp_path / "artifacts").as_uri())
    mlflow.set_experiment("t")
    yield
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="session")
def project_root() -> Path:
    return Path(__file__).parents[1]
