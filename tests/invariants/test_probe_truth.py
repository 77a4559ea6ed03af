"""A base model with known shares, pretrained here, and a judge that errs: the probe finds them.

From the corpus to the shares everything is real: tokenizer, pretraining, sampling, classifier,
correction. Domains differ in the length of their documents, which must not matter.
"""

import json

import numpy as np
import pytest

from tests.helpers.probe_rows import WORDS, cleaned, sentence
from tests.helpers.probing import first_samples
from versatune.artifacts import FolderRef, write_atomic
from versatune.demo.base_model import BaseModelParams, make_base, pretrained_here
from versatune.modeling.checkpoints import CheckpointRef
from versatune.probing.config import ClassifierParams
from versatune.probing.estimate import estimate_shares
from versatune.probing.judges.base import About, Labelled
from versatune.probing.judges.classifier import Classifier, train
from versatune.samplers.config import SamplingParams
from versatune.samplers.local import ModelSampler
from versatune.work import make_folder

SHARES = {"law": 0.55, "medicine": 0.30, "other": 0.15}
LENGTHS = {"law": 6, "medicine": 4, "other": 8}
"""Words of a domain's documents."""
PURITY = 0.6


def document(rng: np.random.Generator, domain: str) -> str:
    """Words of the domain and of any, so that no judge can be sure."""
    return sentence(rng, domain, PURITY, LENGTHS[domain])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> CheckpointRef:
    """A model that has seen 4,000 documents in the known shares, in any order."""
    folder = tmp_path_factory.mktemp("truth")
    rng = np.random.default_rng(0)
    texts = [document(rng, d) for d, share in SHARES.items() for _ in range(round(4000 * share))]
    lines = [json.dumps({"text": texts[i]}) for i in rng.permutation(len(texts))]
    write_atomic(folder / "corpus.jsonl", "\n".join(lines) + "\n")
    pretraining = {
        "vocab_size": 600,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_length": 64,
        "per_device_train_batch_size": 64,
        "num_train_epochs": 6,
        "learning_rate": 1e-2,
    }
    piece = make_base(BaseModelParams(pretrain=pretraining), folder / "corpus.jsonl")
    return pretrained_here(make_folder(piece, folder / "base").path)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> FolderRef:
    """A classifier that gives every text it is not sure of to ``other``."""
    folder = tmp_path_factory.mktemp("judge")
    rng = np.random.default_rng(1)
    rows = {d: [tuple(document(rng, d).split(" ", 1)) for _ in range(2000)] for d in WORDS}
    params = ClassifierParams(weak_evidence=0.97)
    return make_folder(train(cleaned(folder / "rows", rows), params, About()), folder / "judge")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory, base: CheckpointRef) -> list[str]:
    """What the model says unasked."""
    sampler = ModelSampler(base, SamplingParams(max_new_tokens=32))
    drawn = first_samples(tmp_path_factory.mktemp("samples"), sampler, 0, 512, 2048)
    return [sample.text for sample in drawn]


def away(shares: np.ndarray, domains: list[str]) -> float:
    """Total variation from the corpus."""
    return float(np.abs(shares - [SHARES[d] for d in domains]).sum() / 2)


def test_the_model_draws_documents_of_any_length_in_their_shares(texts):
    # Here a document's length tells its domain.
    counts = np.array([sum(len(t.split()) == LENGTHS[d] for t in texts) for d in SHARES])
    assert counts.sum() > 0.9 * len(texts)
    assert away(counts / counts.sum(), list(SHARES)) < 0.06


def test_the_probe_finds_the_shares_of_the_corpus(texts, judge):
    judged = Classifier.load(judge).judge(texts)
    domains = judge.metadata["domains"]
    found = estimate_shares(judged.probabilities, Labelled.load(judge), "pacc", 100, 0)
    assert away(found.raw, domains) > 0.15  # the judge does err
    assert away(found.share, domains) < 0.07
