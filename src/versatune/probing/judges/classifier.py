"""The default judge: a text classifier trained on the ingested rows.

TF-IDF of words and of characters, logistic regression with every domain weighted alike, a
temperature fitted on held-out rows. Kept as plain arrays and a JSON vocabulary: nothing is
unpickled when it is loaded.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from versatune.artifacts import FolderRef, write_json
from versatune.errors import VersatuneError
from versatune.intervals import Array
from versatune.probing.config import ClassifierParams
from versatune.probing.judges import calibration
from versatune.probing.judges.base import (
    About,
    Judgement,
    Labelled,
    labelled_texts,
    without_rows,
)
from versatune.probing.quantification import Labels
from versatune.work import Piece

WEIGHTS = "weights.safetensors"
VOCABULARY = "vocabulary.json"


class Classifier:
    """Judges texts by their words and characters."""

    def __init__(
        self, features: "Features", weights: dict[str, Any], domains: Sequence[str]
    ) -> None:
        self.features = features
        self.coef, self.intercept = weights["coef"], weights["intercept"]
        self.temperature = float(weights["temperature"][0])
        self.weak = float(weights["weak"][0])
        self.max_chars = int(weights["max_chars"][0])
        self.other = domains.index("other") if "other" in domains else None

    def judge(self, texts: Sequence[str]) -> Judgement:
        """Probabilities for every text; none is refused. About a thousand texts a second."""
        cut = [t[: self.max_chars] for t in texts]
        logits = self.features.transform(cut) @ self.coef.T + self.intercept
        k = len(self.intercept)
        probabilities = calibration.apply(np.asarray(logits), self.temperature, np.zeros(k))
        probabilities = weak_to_other(probabilities, self.other, self.weak)
        return Judgement(probabilities, ["ok"] * len(cut), self.features.vocab_coverage(cut))

    @classmethod
    def load(cls, ref: FolderRef) -> Self:
        """From a finished judge's folder."""
        weights = load_file(ref.path / WEIGHTS)
        vocabulary = json.loads((ref.path / VOCABULARY).read_text(encoding="utf-8"))
        return cls(Features.restore(vocabulary, weights), weights, ref.metadata["domains"])


def weak_to_other(probabilities: Array, other: int | None, weak: float) -> Array:
    """Give a text wholly to ``other`` when its likeliest domain is below ``weak``; (n, k)."""
    if other is None or weak == 0:
        return probabilities
    given = probabilities.copy()
    given[probabilities.max(axis=1) < weak] = np.eye(probabilities.shape[1])[other]
    return given


class Features:
    """TF-IDF of words (one and two) and of characters inside words (two to four)."""

    def __init__(self, max_features: int, vocabulary: dict[str, list[str]] | None = None) -> None:
        def vectorizer(name: str, **how: Any) -> Any:
            if vocabulary is not None:
                return TfidfVectorizer(sublinear_tf=True, vocabulary=vocabulary[name], **how)
            return TfidfVectorizer(
                sublinear_tf=True, min_df=2, max_features=max_features, dtype=np.float32, **how
            )

        self.word = vectorizer("word", ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b")
        self.char = vectorizer("char", ngram_range=(2, 4), analyzer="char_wb")

    def fit(self, texts: Sequence[str]) -> Self:
        """Learn the vocabularies."""
        self.word.fit(texts)
        self.char.fit(texts)
        return self

    def transform(self, texts: Sequence[str]) -> Any:
        """Sparse (n, features)."""
        if not texts:  # scikit-learn refuses to transform nothing
            return csr_matrix((0, len(self.word.vocabulary_) + len(self.char.vocabulary_)))
        return hstack([self.word.transform(texts), self.char.transform(texts)], format="csr")

    def vocab_coverage(self, texts: Sequence[str]) -> Array:
        """Share of each text's distinct words that were in the training rows; (n,)."""
        words = self.word.build_tokenizer()
        known = self.word.vocabulary_
        found = [{w.lower() for w in words(t)} for t in texts]
        return np.array([sum(w in known for w in f) / len(f) if f else 0.0 for f in found])

    def dump(self) -> tuple[dict[str, list[str]], dict[str, Any]]:
        """Vocabularies in the order of their columns, and the inverse document frequencies."""
        parts = {"word": self.word, "char": self.char}
        vocabulary = {n: part.get_feature_names_out().tolist() for n, part in parts.items()}
        return vocabulary, {f"idf_{n}": p.idf_.astype(np.float64) for n, p in parts.items()}

    @classmethod
    def restore(cls, vocabulary: dict[str, list[str]], weights: dict[str, Any]) -> Self:
        """What :meth:`dump` gave."""
        features = cls(0, vocabulary)
        features.word.idf_ = weights["idf_word"]
        features.char.idf_ = weights["idf_char"]
        return features


def split(labels: Labels, held_out: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers to train on and to hold out, by domain; at least two held out of each."""
    rng = np.random.default_rng(seed)
    train, held = [], []
    for domain in range(int(labels.max()) + 1):
        mine = rng.permutation(np.flatnonzero(labels == domain))
        n = min(max(2, round(held_out * len(mine))), len(mine) - 2)
        held.append(mine[:n])
        train.append(mine[n:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(held))


def train(clean: FolderRef, params: ClassifierParams, about: About) -> Piece:
    """A classifier, trained and calibrated.

    ``about.background`` stands for a domain without rows: what the base model says unasked, of
    which most is unlike the other domains' rows. Raises VersatuneError where several domains have
    none.
    """
    seed, background = about.seed, about.background
    inputs = {"kind": "classifier", "rows": clean.fingerprint, "params": params, "seed": seed}
    empty = without_rows(clean)
    if len(empty) > 1:
        raise VersatuneError(
            f"a classifier learns domains from their rows, and {', '.join(empty)} have none: take "
            "a judge that knows them by their description (probe.judge.kind: likelihood or "
            "endpoint), or make them one domain."
        )
    if not empty:
        background = None
    elif background is not None:
        inputs["background"] = [background.samples.fingerprint, background.n]

    def make(folder: Path) -> dict[str, Any]:
        unlike = background.texts() if background else []
        texts, labels, domains = labelled_texts(clean, params.rows_per_domain, seed, unlike)
        texts = [t[: params.max_chars] for t in texts]
        fit_rows, held = split(labels, params.held_out, seed)
        features = Features(params.max_features).fit([texts[i] for i in fit_rows])
        model = LogisticRegression(C=params.regularisation, class_weight="balanced", max_iter=500)
        model.fit(features.transform([texts[i] for i in fit_rows]), labels[fit_rows])
        coef, intercept = _all_domains(model)
        logits = features.transform([texts[i] for i in held]) @ coef.T + intercept
        temperature, _ = calibration.fit(np.asarray(logits), labels[held], offsets=False)
        vocabulary, weights = features.dump()
        weights |= {
            "coef": coef,
            "intercept": intercept,
            "temperature": np.array([temperature]),
            "weak": np.array([params.weak_evidence]),
            "max_chars": np.array([params.max_chars]),
        }
        save_file(weights, folder / WEIGHTS)
        write_json(folder / VOCABULARY, vocabulary)
        judgement = Classifier(features, weights, domains).judge([texts[i] for i in held])
        Labelled(judgement.probabilities, labels[held], judgement.vocab_coverage).save(folder)
        right = judgement.probabilities.argmax(axis=1) == labels[held]
        return {
            "kind": "classifier",
            "name": f"classifier trained on {len(fit_rows)} ingested rows",
            "domains": domains,
            "labelled_rows": len(held),
            "accuracy": float(right.mean()),
            "temperature": temperature,
        }

    return Piece(inputs, make)


def open_judge(ref: FolderRef, _params: ClassifierParams, _about: About) -> Classifier:
    """From a finished judge's folder."""
    return Classifier.load(ref)


def _all_domains(model: Any) -> tuple[Any, Any]:
    """Coefficients with one row a domain, also for two domains (scikit-learn keeps one row)."""
    coef, intercept = model.coef_, model.intercept_
    if len(coef) == 1:
        coef = np.vstack([np.zeros_like(coef), coef])
        intercept = np.append(0.0, intercept)
    return np.ascontiguousarray(coef, dtype=np.float64), intercept.astype(np.float64)
