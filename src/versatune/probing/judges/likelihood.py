"""A local instruct model as judge: it scores the domains' labels, generating nothing.

The model reads the text, the domains with their descriptions and the question; the judge takes the
scores it gives the first token of each label as the next token, behind all that the chat template
writes before an answer's content. Small models prefer some labels whatever they read, so a
temperature and one offset a domain are fitted on half of the labelled rows; the other half measures
the errors that remain.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from safetensors.numpy import load_file, save_file

from versatune.artifacts import FolderRef
from versatune.data.answers import Answers
from versatune.errors import VersatuneError
from versatune.intervals import Array
from versatune.modeling.checkpoints import CheckpointRef, load_tokenizer
from versatune.probing.config import LikelihoodParams
from versatune.probing.judges import calibration
from versatune.probing.judges.base import (
    About,
    Judgement,
    Labelled,
    labelled_texts,
    without_rows,
)
from versatune.probing.judges.classifier import split
from versatune.work import Piece, bars

CALIBRATION = "calibration.safetensors"

ASKED = 2
"""Raised when texts are judged by other questions or tokens, so that kept judges are not used."""


class Scorer:
    """Scores of the labels as next token after a text, not calibrated yet."""

    def __init__(
        self, model: CheckpointRef, descriptions: dict[str, str], params: LikelihoodParams
    ) -> None:
        from versatune.modeling.room import load_checked

        self.params = params
        self.tokenizer = load_tokenizer(model)
        self.tokenizer.padding_side = "left"
        self.model = load_checked(model, params.dtype, "probe.judge.likelihood")
        self.answers = Answers(self.tokenizer)
        labels, self.ids = label_tokens(self.answers, list(descriptions))
        self.label = labels[0]
        self.options = "\n".join(
            f"{label}: {text}" for label, text in zip(labels, descriptions.values(), strict=True)
        )

    def scores(self, texts: Sequence[str]) -> Array:
        """Log-probabilities of the labels, (n, k); texts of like length are read together."""
        import torch

        prompts = [self.tokens(t) for t in texts]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]), reverse=True)
        scores = np.zeros((len(texts), len(self.ids)))
        size = self.params.batch_size
        starts = range(0, len(order), size)
        for at in bars.each(starts, len(starts), "judging", "batches"):
            rows = order[at : at + size]
            batch = self.tokenizer.pad(
                {"input_ids": [prompts[i] for i in rows]}, return_tensors="pt"
            ).to(self.model.device)
            with torch.inference_mode():
                logits = self.model(**batch, logits_to_keep=1).logits[:, -1].float()
            scores[rows] = logits.log_softmax(-1)[:, self.ids].double().cpu().numpy()
        return scores

    def tokens(self, text: str) -> list[int]:
        """What the model reads, ending where its answer begins."""
        (row,) = self.answers.encode(
            [{"role": "user", "content": self.question(text)}], [self.label]
        )
        return row.ids[: row.content[0]]

    def question(self, text: str) -> str:
        """What is asked about a text, of which only the beginning is shown."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        cut = self.tokenizer.decode(ids[: self.params.max_text_tokens])
        return (
            f"Text:\n{cut}\n\nTopics:\n{self.options}\n\n"
            "Which topic is the text about? Answer with the topic's name only."
        )


class Likelihood:
    """Judges texts by the calibrated scores of a local model."""

    def __init__(self, scorer: Scorer, temperature: float, offsets: Array) -> None:
        self.scorer, self.temperature, self.offsets = scorer, temperature, offsets

    def judge(self, texts: Sequence[str]) -> Judgement:
        """Probabilities for every text; none is refused."""
        scores = self.scorer.scores(texts)
        probabilities = calibration.apply(scores, self.temperature, self.offsets)
        return Judgement(probabilities, ["ok"] * len(texts), np.full(len(texts), np.nan))

    @classmethod
    def load(cls, ref: FolderRef, params: LikelihoodParams) -> Self:
        """From a finished judge's folder; the model is loaded again."""
        kept = load_file(ref.path / CALIBRATION)
        model = CheckpointRef.of_folder(params.name_or_path)
        scorer = Scorer(model, ref.metadata["descriptions"], params)
        return cls(scorer, float(kept["temperature"][0]), kept["offsets"])


def label_tokens(answers: Answers, names: Sequence[str]) -> tuple[list[str], list[int]]:
    """Labels to offer and the first token of each as an answer's content.

    The domains' names if their first tokens differ, else the letters A, B, C and so on.
    """
    for labels in (list(names), [chr(ord("A") + i) for i in range(len(names))]):
        rows = answers.encode([{"role": "user", "content": "Which topic?"}], labels)
        ids = [row.ids[row.content[0]] for row in rows]
        read = {tuple(row.ids[: row.content[0]]) for row in rows}
        if len(set(ids)) == len(names) and len(read) == 1:
            return labels, ids
    raise VersatuneError(
        "the judging model's tokenizer can't tell the domains' names apart by their first token."
    )


def train(clean: FolderRef, params: LikelihoodParams, about: About) -> Piece:
    """Calibrated on half of the labelled rows, its errors measured on the other half."""
    model = CheckpointRef.of_folder(params.name_or_path)
    inputs = {
        "kind": "likelihood",
        "asked": ASKED,
        "rows": clean.fingerprint,
        "model": model.fingerprint,
        "descriptions": list(about.descriptions.items()),
        "params": params.model_dump(mode="json", exclude={"name_or_path", "batch_size"}),
        "seed": about.seed,
    }

    def make(folder: Path) -> dict[str, Any]:
        texts, labels, domains = labelled_texts(clean, params.labelled_per_domain, about.seed)
        ordered = {name: about.descriptions[name] for name in domains}
        scores = Scorer(model, ordered, params).scores(texts)
        fitted, held = split(labels, 0.5, about.seed)
        # Without rows of a domain, offsets would learn that no text is ever of it.
        empty = [domains.index(name) for name in without_rows(clean)]
        temperature, offsets = calibration.fit(scores[fitted], labels[fitted], offsets=not empty)
        save_file(
            {"temperature": np.array([temperature]), "offsets": offsets}, folder / CALIBRATION
        )
        probabilities = calibration.apply(scores[held], temperature, offsets)
        labelled = Labelled(probabilities, labels[held], np.full(len(held), np.nan))
        labelled.with_oracle(empty).save(folder)
        return {
            "kind": "likelihood",
            "name": f"likelihood of labels under {model.name}",
            "domains": domains,
            "descriptions": ordered,
            "labelled_rows": len(held),
            "accuracy": float((probabilities.argmax(axis=1) == labels[held]).mean()),
        }

    return Piece(inputs, make)


def open_judge(ref: FolderRef, params: LikelihoodParams, _about: About) -> Likelihood:
    """From a finished judge's folder."""
    return Likelihood.load(ref, params)
