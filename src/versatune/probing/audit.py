"""The audit: a second judge judges a part of the samples and corrects the first.

Which samples is drawn by known chances, more of those the first judge is unsure of, so that what
the second says of them stands for what it would say of all. Answers that have to be paid for, or
were written by people, are kept where the first judge keeps its own.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from sklearn.metrics import cohen_kappa_score

from versatune.artifacts import FolderRef, file_digest, fingerprint
from versatune.errors import VersatuneError
from versatune.intervals import Array
from versatune.probing import judges
from versatune.probing.config import ProbeParams
from versatune.probing.estimate import Audit
from versatune.probing.judges.base import LABELLED, About, Labelled
from versatune.probing.probe import (
    JudgementStore,
    any_failed,
    load_judgements,
    load_probe,
)
from versatune.probing.quantification import audit_chances
from versatune.work import Piece

logger = logging.getLogger(__name__)

CHOICE = "choice.safetensors"
KEY = "probe.audit.judge"
PART = 64
"""Samples judged between two files, about: a killed audit loses no more."""
_STREAM = 1
"""Beside the seed, for random numbers of the audit's own: one a sample, which stays when there are
more samples or a larger n, so that few texts are asked about in vain."""


def run_audit(
    auditor: FolderRef,
    samples: FolderRef,
    judgements: FolderRef,
    params: ProbeParams,
    about: About,
) -> Piece:
    """Choose samples for the second judge, and have it judge them.

    Texts that got no answer are asked about again. Metadata: the judge's ``name`` and
    ``accuracy`` on its labelled rows, ``n`` samples asked about, ``answered``. Raises
    VersatuneError when people have not read all texts yet, or, when it is made, when none got an
    answer.
    """
    second = params.audit.judge
    drawn, judged = load_probe(samples, judgements)
    texts = np.flatnonzero(judged.ok)
    chances = audit_chances(judged.probabilities[texts], params.audit.n)
    numbers = np.random.default_rng([params.seed, _STREAM]).random(len(drawn))
    asked = texts[numbers[texts] < chances]
    choice = {"sample": asked, "judged": texts, "chance": chances}
    inputs = {
        "auditor": auditor.fingerprint,
        "rows": file_digest(auditor.path / LABELLED),
        "samples": samples.fingerprint,
        "choice": fingerprint({name: values.tolist() for name, values in choice.items()}),
    }
    parts = np.array_split(asked, max(1, round(len(asked) / PART)))
    if second.own.counts_as_true:
        # People get all texts in one file, and may change their mind.
        parts = [asked]
        read = judges.open_judge(auditor, second, about).judge([drawn[i].text for i in asked])
        inputs["answers"] = fingerprint(np.nan_to_num(read.probabilities).tolist())

    def make(folder: Path) -> dict[str, Any]:
        store = JudgementStore(folder, lambda: judges.open_judge(auditor, second, about))
        for number, part in enumerate(parts):
            store.of(number, [drawn[i] for i in part])
        answered = int(load_judgements(folder, len(asked)).ok.sum())
        name = auditor.metadata["name"]
        if not answered:
            raise VersatuneError(
                f"probe.audit: none of {len(asked)} samples got a usable answer from {name}; take "
                f"another {KEY}, or set probe.audit.n to 0."
            )
        save_file(choice, folder / CHOICE)
        Labelled.load(auditor).save(folder)
        logger.info("probe: %s judged %d samples, %d usable", name, len(asked), answered)
        return {
            "kind": second.kind,
            "name": name,
            "accuracy": auditor.metadata["accuracy"],
            "n": len(asked),
            "answered": answered,
            "of": {"samples": samples.fingerprint, "n": params.audit.n},
        }

    return Piece(inputs, make, enough=lambda ref: not any_failed(ref))


def check_audit(ref: FolderRef, samples: FolderRef, params: ProbeParams) -> None:
    """Raises VersatuneError when an audit is not of these samples, or not as large as asked."""
    if ref.metadata.get("of") != {"samples": samples.fingerprint, "n": params.audit.n}:
        raise VersatuneError(
            f"{ref.path} holds no audit of {params.audit.n} of these samples: run the node "
            "audit_samples, or the whole probe."
        )


def load_audit(ref: FolderRef, n: int, k: int) -> Audit:
    """The audit of n samples of k domains; NaN for samples that were not asked about.

    Chances are NaN where the first judge gave no judgement: those samples are not in the estimate.
    """
    choice = load_file(ref.path / CHOICE)
    probabilities, chances = np.full((n, k), np.nan), np.full(n, np.nan)
    vocab_coverage = np.full(n, np.nan)
    chances[choice["judged"]] = choice["chance"]
    said = load_judgements(ref.path, len(choice["sample"]))
    probabilities[choice["sample"]] = said.probabilities
    vocab_coverage[choice["sample"]] = said.vocab_coverage
    return Audit(probabilities, chances, Labelled.load(ref), vocab_coverage)


def agreement(probabilities: Array, audit: Audit) -> dict[str, float | None]:
    """How far two judges agree, as far as the audited samples tell of all of them; (n, k).

    ``alike``: share of the samples with the same likeliest domain; ``kappa``: Cohen's, 0 is chance
    (None where both name one and the same domain alone). Samples weigh 1 / chance.
    """
    both = ~np.isnan(audit.probabilities[:, 0])
    first = probabilities[both].argmax(axis=1)
    second = audit.probabilities[both].argmax(axis=1)
    weights = 1 / audit.chances[both]
    names = np.union1d(first, second)
    kappa = None
    if len(names) > 1:
        kappa = float(cohen_kappa_score(first, second, labels=names, sample_weight=weights))
    return {
        "alike": float(weights[first == second].sum() / weights.sum()),
        "kappa": kappa,
    }
