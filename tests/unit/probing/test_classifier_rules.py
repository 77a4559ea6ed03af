"""The classifier's parts by hand: its features, its split, its arithmetic, what it keeps."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

from versatune.artifacts import FolderRef
from versatune.probing.config import ClassifierParams
from versatune.probing.judges.base import About, Background, Judgement
from versatune.probing.judges.classifier import (
    WEIGHTS,
    Classifier,
    Features,
    _all_domains,
    split,
    train,
)

TEXTS = ["a b b", "a c", "b c c c"]


def test_words_and_pairs_of_words_of_two_texts_or_more() -> None:
    """Each of a, b, c is in two of the three texts, no pair is; a word counts by 1 + ln n."""
    features = Features(100).fit(TEXTS)
    vocabulary, weights = features.dump()
    assert vocabulary["word"] == ["a", "b", "c"]
    np.testing.assert_allclose(weights["idf_word"], 1 + math.log(4 / 3), rtol=1e-6)
    row = features.transform(["b b a x"]).toarray()[0, :3]
    twice = 1 + math.log(2)
    np.testing.assert_allclose(row, np.array([1, twice, 0]) / math.hypot(1, twice), rtol=1e-6)
    pairs = Features(100).fit([*TEXTS, "a b c"]).dump()[0]["word"]
    assert pairs == ["a", "a b", "b", "b c", "c"]


def test_a_word_in_more_texts_counts_less() -> None:
    _, weights = Features(100).fit([*TEXTS, "a"]).dump()
    idf = [1 + math.log(5 / (1 + n)) for n in (3, 2, 2)]
    np.testing.assert_allclose(weights["idf_word"], idf, rtol=1e-6)


def test_characters_within_words() -> None:
    """Two to four of them, a blank at each end of a word; no run over two words."""
    found = Features(100).fit(["abc", "abc d"]).dump()[0]["char"]
    assert found == sorted(
        [" a", "ab", "bc", "c ", " ab", "abc", "bc ", " abc", "abc "],
    )


def test_so_many_features_of_each_kind() -> None:
    vocabulary, _ = Features(2).fit([*TEXTS, "a b"]).dump()
    assert len(vocabulary["word"]) == len(vocabulary["char"]) == 2


def test_features_are_the_same_after_reading_them() -> None:
    texts = ["b b a x", "c", "", "abc"]
    features = Features(100).fit([*TEXTS, "a"])
    again = Features.restore(*features.dump())
    np.testing.assert_allclose(
        again.transform(texts).toarray(), features.transform(texts).toarray(), rtol=1e-6
    )
    assert again.transform([]).shape == features.transform([]).shape
    assert features.transform([]).shape == (0, features.transform(["a"]).shape[1])


def test_words_that_were_seen_before() -> None:
    """Each word once, in any case: a and b of a, b, x; none of nothing."""
    found = Features(100).fit(TEXTS).vocab_coverage(["A b a x", "c", "", "!"])
    assert found.tolist() == pytest.approx([2 / 3, 1, 0, 0])


@pytest.mark.parametrize(
    ("n", "held_out", "held"),
    [(10, 0.3, 3), (5, 0.1, 2), (10, 0.95, 8), (4, 0.3, 2), (9, 0.5, 4)],
)
def test_how_many_rows_are_held_out(n: int, held_out: float, held: int) -> None:
    """At least two, and at least two are left to train on."""
    labels = np.repeat([0, 1, 2], n)
    fitted, kept = split(labels, held_out, 0)
    assert np.bincount(labels[kept]).tolist() == [held] * 3
    assert sorted([*fitted, *kept]) == list(range(3 * n))
    assert (np.diff(fitted) > 0).all() and (np.diff(kept) > 0).all()


def test_rows_are_held_out_by_seed_and_not_in_order() -> None:
    labels = np.repeat([0, 1], 40)
    one, same, other = (split(labels, 0.5, seed)[1].tolist() for seed in (0, 0, 1))
    assert one == same != other and one[:20] != list(range(20))


def test_two_domains_have_a_row_each() -> None:
    """scikit-learn gives the second one's against the first, whose own is then 0."""
    model = SimpleNamespace(coef_=np.array([[1.0, 2.0]]), intercept_=np.array([3.0]))
    coef, intercept = _all_domains(model)
    assert coef.tolist() == [[0, 0], [1, 2]] and intercept.tolist() == [0, 3]
    model = SimpleNamespace(coef_=np.eye(3, dtype=np.float32), intercept_=np.arange(3.0))
    coef, intercept = _all_domains(model)
    assert coef.tolist() == np.eye(3).tolist() and intercept.tolist() == [0, 1, 2]
    assert coef.dtype == intercept.dtype == np.float64


def known(weak: float = 0.0, second: str = "other", max_chars: int = 4) -> Classifier:
    """A text of the word a alone has the logits 2 and 1, one of b 0 and 1."""
    features = Features(100).fit(TEXTS)
    k = features.transform(["a"]).shape[1]
    coef = np.zeros((2, k))
    coef[0, 0] = 2.0
    weights = {
        "coef": coef,
        "intercept": np.array([0.0, 1.0]),
        "temperature": np.array([2.0]),
        "weak": np.array([weak]),
        "max_chars": np.array([max_chars]),
    }
    return Classifier(features, weights, ["law", second])


def judged(classifier: Classifier, text: str) -> Judgement:
    return classifier.judge([text])


def test_logits_are_divided_by_the_temperature() -> None:
    """exp(2 / 2) against exp(1 / 2); beyond four characters nothing is read."""
    found = known().judge(["a", "b", "a   b x"])
    first, second = 1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(0.5))
    expected = [[first, 1 - first], [second, 1 - second], [first, 1 - first]]
    np.testing.assert_allclose(found.probabilities, expected, rtol=1e-6)
    assert found.status == ["ok"] * 3 and found.vocab_coverage.tolist() == [1, 1, 1]
    assert known(max_chars=7).judge(["a   b x"]).vocab_coverage.tolist() == pytest.approx([2 / 3])


def test_a_weak_text_is_other() -> None:
    assert judged(known(weak=0.7), "a").probabilities.tolist() == [[0, 1]]
    assert judged(known(weak=0.6), "a").probabilities[0, 0] > 0.6
    assert judged(known(weak=0.7, second="code"), "a").probabilities[0, 0] > 0.6


def test_what_is_kept_of_a_training(judge: FolderRef) -> None:
    """120 rows of each of three domains, of which 36 are held out."""
    facts = dict(judge.metadata)
    assert facts.pop("accuracy") > 0.9 and 0.01 < facts.pop("temperature") < 20
    assert facts == {
        "kind": "classifier",
        "name": "classifier trained on 252 ingested rows",
        "domains": ["law", "medicine", "other"],
        "labelled_rows": 108,
    }
    weights = load_file(judge.path / WEIGHTS)
    assert weights["temperature"].tolist() == [judge.metadata["temperature"]]
    assert weights["weak"].tolist() == [0] and weights["max_chars"].tolist() == [2000]
    assert Classifier.load(judge).other == 2


def test_what_a_judge_hangs_on(tmp_path: Path) -> None:
    params = ClassifierParams(max_features=200)
    clean = FolderRef(path=tmp_path, fingerprint="rows", metadata={"only_own": ["other"]})
    about = About(seed=7, background=Background(clean.model_copy(), 9))
    inputs = {"kind": "classifier", "rows": "rows", "params": params, "seed": 7}
    assert train(clean, params, about).inputs == {**inputs, "background": ["rows", 9]}
    assert train(clean, params, About(seed=7)).inputs == inputs
    full = clean.model_copy(update={"metadata": {}})
    assert train(full, params, about).inputs == inputs
