"""Rows of three invented domains, and a judge trained on them."""

from pathlib import Path

import numpy as np
import pytest

from versatune.artifacts import FolderRef, WorkFolder
from versatune.probing.config import ClassifierParams

WORDS = {
    "law": ["court", "judge", "contract", "statute", "plaintiff", "appeal", "clause", "tort"],
    "medicine": ["dose", "drug", "patient", "fever", "heart", "tumour", "nurse", "artery"],
    "other": ["river", "poem", "bread", "holiday", "garden", "mountain", "song", "window"],
}


def sentence(rng: np.random.Generator, domain: str, purity: float = 0.8) -> str:
    """Ten words, mostly of the domain, the rest of any."""
    pool = [w for words in WORDS.values() for w in words]
    own = WORDS[domain]
    return " ".join(
        str(rng.choice(own)) if rng.random() < purity else str(rng.choice(pool)) for _ in range(10)
    )


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> FolderRef:
    """120 cleaned rows a domain."""
    import datasets

    rng = np.random.default_rng(0)
    work = WorkFolder.open(tmp_path_factory.mktemp("clean") / "clean", {"made": "up"})
    rows: dict[str, list] = {"domain": [], "messages": []}
    for number, domain in enumerate(WORDS):
        for _ in range(120):
            rows["domain"].append(number)
            rows["messages"].append(
                [
                    {"role": "user", "content": sentence(rng, domain)},
                    {"role": "assistant", "content": sentence(rng, domain)},
                ]
            )
    features = datasets.Features(
        domain=datasets.Value("int32"),
        messages=datasets.List(
            {"role": datasets.Value("string"), "content": datasets.Value("string")}
        ),
    )
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(work.path / "train"))
    return work.seal(domains=list(WORDS), rows={"train": dict.fromkeys(WORDS, 120)})


@pytest.fixture(scope="session")
def classifier_params() -> ClassifierParams:
    return ClassifierParams(max_features=1000)


@pytest.fixture(scope="session")
def judge(
    tmp_path_factory: pytest.TempPathFactory,
    clean: FolderRef,
    classifier_params: ClassifierParams,
) -> FolderRef:
    """A finished classifier."""
    from versatune.probing.judges import classifier

    return classifier.train(tmp_path_factory.mktemp("judge") / "j", clean, classifier_params, 0)


@pytest.fixture
def texts() -> list[str]:
    rng = np.random.default_rng(5)
    return [sentence(rng, domain) for domain in WORDS for _ in range(4)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "folder"
