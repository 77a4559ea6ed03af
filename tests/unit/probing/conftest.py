"""Rows of three invented domains, and a judge trained on them."""

import numpy as np
import pytest

from tests.helpers.probe_rows import WORDS, clean_rows, sentence
from versatune.artifacts import FolderRef
from versatune.probing.config import ClassifierParams
from versatune.work import make_folder


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> FolderRef:
    """120 cleaned rows a domain."""
    return clean_rows(tmp_path_factory.mktemp("clean") / "clean")


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
    from versatune.probing.judges.base import About

    return make_folder(
        classifier.train(clean, classifier_params, About()), tmp_path_factory.mktemp("judge") / "j"
    )


@pytest.fixture
def texts() -> list[str]:
    """Four of each domain, in order."""
    rng = np.random.default_rng(5)
    return [sentence(rng, domain) for domain in WORDS for _ in range(4)]
