"""The classifier judge: right on its domain, calibrated, the same after a reload, no pickle."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy.special import softmax

from versatune.artifacts import FolderRef
from versatune.errors import VersatuneError
from versatune.probing.config import ClassifierParams
from versatune.probing.judges import calibration
from versatune.probing.judges.base import LABELLED, About, Labelled, labelled_texts
from versatune.probing.judges.classifier import Classifier, split, train, weak_to_other
from versatune.work import WorkFolder, make_folder


def test_it_knows_its_domains(judge: FolderRef, texts):
    found = Classifier.load(judge).judge(texts)
    assert found.probabilities.argmax(axis=1).tolist() == np.repeat([0, 1, 2], 4).tolist()
    assert found.probabilities.sum(axis=1) == pytest.approx(np.ones(12))
    assert found.ok.all()
    assert judge.metadata["accuracy"] > 0.9


def test_held_out_rows_are_those_the_judge_never_saw(judge: FolderRef, clean, classifier_params):
    labelled = Labelled.load(judge)
    assert np.bincount(labelled.labels).tolist() == [36, 36, 36]
    texts, labels, _ = labelled_texts(clean, classifier_params.rows_per_domain, 0)
    _, held = split(labels, classifier_params.held_out, 0)
    again = Classifier.load(judge).judge([texts[i] for i in held])
    assert again.probabilities == pytest.approx(labelled.probabilities)


def test_a_folder_of_the_version_before_is_read(judge: FolderRef, tmp_path):
    kept = load_file(judge.path / LABELLED)
    kept["familiarity"] = kept.pop("vocab_coverage")
    save_file(kept, tmp_path / LABELLED)
    old = Labelled.load(FolderRef(path=tmp_path, fingerprint="", metadata={}))
    assert np.array_equal(old.vocab_coverage, Labelled.load(judge).vocab_coverage)


def test_nothing_in_its_folder_can_run_code(judge: FolderRef):
    suffixes = {f.suffix for f in judge.path.iterdir()}
    assert suffixes == {".safetensors", ".json"}


def test_the_same_rows_give_the_same_judge(tmp_path, clean, classifier_params, judge, texts):
    again = make_folder(train(clean, classifier_params, About()), tmp_path / "j")
    assert again.fingerprint == judge.fingerprint
    one, two = (Classifier.load(ref).judge(texts).probabilities for ref in (judge, again))
    assert one == pytest.approx(two)


def test_familiar_words_are_told_from_strange_ones(judge: FolderRef):
    found = Classifier.load(judge).judge(["Court judge appeal", "zyx wvu court tsr", "...", ""])
    assert found.vocab_coverage == pytest.approx([1, 0.25, 0, 0])
    assert found.ok.all()


def test_weak_evidence_goes_to_other_wholly():
    p = np.array([[0.4, 0.35, 0.25], [0.6, 0.3, 0.1]])
    assert weak_to_other(p, 2, 0.5).tolist() == [[0, 0, 1], [0.6, 0.3, 0.1]]
    assert weak_to_other(p, None, 0.5) is p
    assert weak_to_other(p, 2, 0) is p


def test_two_domains_are_enough(tmp_path, clean):
    import datasets

    work = WorkFolder.open(tmp_path / "clean", {"two": True})
    rows = datasets.load_from_disk(str(clean.path / "train"))
    rows.filter(lambda d: d < 2, input_columns="domain").save_to_disk(str(work.path / "train"))
    ref = make_folder(
        train(work.seal(domains=["law", "medicine"]), ClassifierParams(), About()), tmp_path / "j"
    )
    found = Classifier.load(ref).judge(["court judge statute", "nurse fever drug"])
    assert found.probabilities.argmax(axis=1).tolist() == [0, 1]


def test_a_domain_with_too_few_rows_is_named(tmp_path, clean):
    import datasets

    work = WorkFolder.open(tmp_path / "clean", {"few": True})
    rows = datasets.load_from_disk(str(clean.path / "train")).select(range(123))
    rows.save_to_disk(str(work.path / "train"))
    ref = work.seal(domains=["law", "medicine", "other"])
    with pytest.raises(VersatuneError, match="medicine has 3"):
        make_folder(train(ref, ClassifierParams(), About()), tmp_path / "j")


def test_rows_are_limited_by_domain_and_drawn_by_seed(clean):
    texts, labels, domains = labelled_texts(clean, 10, 0)
    assert domains == ("law", "medicine", "other")
    assert np.bincount(labels).tolist() == [10, 10, 10]
    assert texts == labelled_texts(clean, 10, 0)[0]
    assert texts != labelled_texts(clean, 10, 1)[0]
    assert all("\n" in t for t in texts)


def test_temperature_undoes_overconfidence():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(4000, 3)) * 2
    labels = np.array([rng.choice(3, p=p) for p in softmax(truth, axis=1)])
    temperature, offsets = calibration.fit(truth * 4, labels, offsets=False)
    assert temperature == pytest.approx(4, rel=0.15)
    assert (offsets == 0).all()


def test_offsets_undo_a_lean_towards_one_label():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(4000, 3)) * 2
    labels = np.array([rng.choice(3, p=p) for p in softmax(truth, axis=1)])
    leaning = truth + np.array([5, 0, 0])
    temperature, offsets = calibration.fit(leaning, labels, offsets=True)
    calibrated = calibration.apply(leaning, temperature, offsets)
    assert calibrated.mean(axis=0) == pytest.approx(softmax(truth, axis=1).mean(axis=0), abs=0.03)
