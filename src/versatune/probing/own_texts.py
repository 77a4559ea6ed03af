"""Texts that the base model wrote itself, judged into domains and filtered.

The probe's samples are what the base model says when nobody asks. Those that a judge is sure of,
that repeat nothing, hold no evaluation question and are no garbage can be trained on where a domain
has no rows (a source ``{self: true}``), and tell how far a trained model has moved from its base
(:mod:`versatune.modeling.drift`).

A folder of own texts holds ``texts.jsonl``, a line a text that stays (``index`` of the sample,
``domain``, ``split``, ``ended``, ``confidence``, ``text``), and ``report.json``. A domain that has
no other rows trains on them, steers by them and is reported by them; one that has rows
trains on them too. All other texts are ``report``: drift is measured on these.

Sources: Huang et al., "Mitigating catastrophic forgetting ... with self-synthesized rehearsal"
(SSR, arXiv 2403.01244); Xu et al., "Magpie" (arXiv 2406.08464).
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from versatune.artifacts import FolderRef, file_digest, read_json, write_atomic, write_json
from versatune.data.config import CleanParams, DomainConfig
from versatune.data.duplicates import answer_key, near_duplicates, signatures
from versatune.data.leaks import LeakIndex, read_questions
from versatune.data.own_rows import TEXTS, OwnText
from versatune.data.selection import exact_duplicates
from versatune.data.store import Split
from versatune.data.text import Vocabulary, flatten, fold, key, uniform
from versatune.errors import VersatuneError
from versatune.probing.config import OwnTextParams
from versatune.probing.judges.base import Judgement, without_rows
from versatune.probing.probe import load_probe
from versatune.samplers.base import Sample
from versatune.work import Piece
from versatune.work.folder import SKIPPED

REPORT = "report.json"
VERSION = 2
"""Raised when the same samples would give other texts: kept ones are not used."""

LEAST: dict[Split, int] = {"train": 1, "steering": 2, "report": 2}
"""Texts that a domain without other rows needs in each split."""

GARBAGE = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f\ufffd]")
"""Control characters, and what stands for bytes that are no text."""


def own_texts(
    samples: FolderRef,
    judgements: FolderRef,
    domains: Sequence[str],
    configs: Mapping[str, DomainConfig],
    ingest: CleanParams,
    params: OwnTextParams,
) -> Piece:
    """The texts that stay, of those the probe drew and judged.

    ``domains``: the judge's, in their order. Metadata: ``domains``; ``own`` (domain -> split ->
    texts), ``trained_on`` (domains with a source ``{self: true}``), ``rejected`` (reason -> count).
    Raises VersatuneError when a domain that has no other rows is left too few.
    """
    trained_on = [name for name in domains if configs[name].rehearses]
    alone = [name for name in trained_on if configs[name].only_own]
    questions = [Path(e.path) for name in domains for e in configs[name].evaluation]
    inputs = {
        "version": VERSION,
        "samples": samples.fingerprint,
        "judgements": [judgements.fingerprint, judgements.metadata["n"]],
        "params": params,
        "trained_on": [trained_on, alone],
        "ingest": [ingest.seed, ingest.leak_words, ingest.near_duplicate_threshold],
        "questions": [file_digest(path) for path in questions],
    }

    def make(folder: Path) -> dict[str, Any]:
        drawn, judged = load_probe(samples, judgements)
        asked = [question for path in questions for question in read_questions(path)]
        leaks = LeakIndex(asked, ingest.leak_words)
        reasons = rejections(drawn, judged, params, leaks, ingest.near_duplicate_threshold)
        texts = sorted_out(drawn, judged, reasons, domains, trained_on, alone, params, ingest.seed)
        report = account(texts, judged, reasons, domains, trained_on)
        for name in alone:
            _check_enough(name, report["domains"][name], len(drawn))
        lines = [json.dumps(vars(text), ensure_ascii=False) for text in texts]
        write_atomic(folder / TEXTS, "".join(f"{line}\n" for line in lines))
        write_json(folder / REPORT, report)
        return {
            "domains": list(domains),
            "trained_on": trained_on,
            "own": {name: entry["own"] for name, entry in report["domains"].items()},
            "rejected": report["rejected"],
        }

    return Piece(inputs, make)


def read_report(ref: FolderRef) -> dict[str, Any]:
    """The report of a folder; without samples if the probe was left out."""
    if ref.metadata.get(SKIPPED):
        return {"samples": 0, "rejected": {}, "domains": {}}
    report: dict[str, Any] = read_json(ref.path / REPORT)
    return report


def in_words(entry: Mapping[str, Any]) -> str:
    """A domain's part of :func:`account` in a line."""
    own = entry["own"]
    lost = ", ".join(f"{count} {reason}" for reason, count in entry["rejected"].items())
    return (
        f"{sum(own.values())} texts of the base model's own ({own['train']} to train, "
        f"{own['steering']} to steer, {own['report']} to report); left out: {lost or 'none'}"
    )


def unmeasured(clean: FolderRef) -> list[str]:
    """The warning about the shares of domains without rows."""
    return [
        f"{name} has no rows, so the judge's errors on it are unknown: its share is not corrected, "
        "and no measurement."
        for name in without_rows(clean)
    ]


def own_rows_of(texts: FolderRef, configs: Mapping[str, DomainConfig]) -> list[str]:
    """The domains with a source ``{self: true}``; raises VersatuneError for texts of others."""
    wanted = [name for name, config in configs.items() if config.rehearses]
    if texts.metadata.get("trained_on") != wanted:
        raise VersatuneError(
            f"{', '.join(wanted)}: the base model's own texts were not selected for "
            "`self: true` there: run the probe pipeline again."
        )
    return wanted


def rejections(
    samples: Sequence[Sample],
    judgement: Judgement,
    params: OwnTextParams,
    leaks: LeakIndex,
    near: float | None,
) -> list[str]:
    """Why each sample is left out, the first reason that holds; empty for one that stays.

    ``not_judged``, ``empty``, ``loop`` (it repeats itself), ``garbage`` (:data:`GARBAGE`, or hardly
    any letters), ``no_answer`` (to a question of the model's own, or one that the length limit cut
    off), ``too_short``, ``unsure`` (the judge), ``leaked`` (it holds an evaluation question),
    ``duplicate`` and ``near_duplicate`` (of an earlier one that stays).
    """
    sure = np.nan_to_num(judgement.probabilities, nan=0.0).max(axis=1)
    reasons = [
        _fault(sample, status, confidence, params)
        for sample, status, confidence in zip(samples, judgement.status, sure.tolist(), strict=True)
    ]
    folded = [fold(sample.text) for sample in samples]
    vocabulary = Vocabulary()
    ids = [vocabulary.ids(text) for text in folded]
    flat, starts = flatten(ids)
    leaked = leaks.leaking(flat, starts) | leaks.is_question(flat, starts)
    reasons = [r or ("leaked" if bad else "") for r, bad in zip(reasons, leaked, strict=True)]
    alive = np.array([not reason for reason in reasons])
    keys = np.array([key(text) for text in folded], dtype=np.uint64)
    exact = exact_duplicates(keys, alive) >= 0
    alive &= ~exact
    alike = np.zeros(len(alive), dtype=bool)
    if near is not None and alive.any():
        answers = [answer_key(text, len(own)) for text, own in zip(folded, ids, strict=True)]
        found = near_duplicates(
            signatures(flat, starts), np.array(answers, dtype=np.uint64), alive, near
        )
        alike = found >= 0
    return [
        reason or ("duplicate" if same else "near_duplicate" if like else "")
        for reason, same, like in zip(reasons, exact, alike, strict=True)
    ]


def _fault(sample: Sample, status: str, confidence: float, params: OwnTextParams) -> str:
    if sample.flag == "empty" or status == "empty":
        return "empty"
    if status != "ok":
        return "not_judged"
    if sample.flag == "loop":
        return "loop"
    letters = sum(c.isalnum() or c.isspace() for c in sample.text)
    if GARBAGE.search(sample.text) or 2 * letters < len(sample.text):
        return "garbage"
    if sample.question and not (sample.answer.strip() and sample.ended):
        return "no_answer"
    if sample.n_tokens < params.min_tokens:
        return "too_short"
    return "unsure" if confidence < params.min_confidence else ""


def sorted_out(
    samples: Sequence[Sample],
    judgement: Judgement,
    reasons: Sequence[str],
    domains: Sequence[str],
    trained_on: Sequence[str],
    alone: Sequence[str],
    params: OwnTextParams,
    seed: int,
) -> list[OwnText]:
    """The texts that stay, by domain and then by sample; the split is a hash of text and seed.

    ``alone``: those of the domains ``trained_on`` that have no other rows, so that these texts
    steer too; elsewhere the held-out rows do.
    """
    best = np.nan_to_num(judgement.probabilities, nan=0.0)
    keys = np.array([key(fold(sample.text)) for sample in samples], dtype=np.uint64)
    draws = uniform(keys, seed)
    texts = [
        OwnText(
            index=sample.index,
            domain=(name := domains[int(row.argmax())]),
            split=_split(float(draw), params.held_out, name in alone)
            if name in trained_on
            else "report",
            ended=sample.ended,
            confidence=round(float(row.max()), 4),
            text=sample.text,
            question=sample.question,
            answer=sample.answer,
            thought=sample.thought,
        )
        for sample, row, draw, reason in zip(samples, best, draws, reasons, strict=True)
        if not reason
    ]
    return sorted(texts, key=lambda text: (domains.index(text.domain), text.index))


def _split(draw: float, held_out: float, steers: bool) -> Split:
    if draw >= held_out:
        return "train"
    return "steering" if steers and draw < held_out / 2 else "report"


def account(
    texts: Sequence[OwnText],
    judgement: Judgement,
    reasons: Sequence[str],
    domains: Sequence[str],
    trained_on: Sequence[str],
) -> dict[str, Any]:
    """Where every sample went: ``samples`` = the sum of ``rejected`` and of the domains' ``own``.

    ``rejected``: reason -> count over all samples; ``domains``: name -> ``trained_on``, ``own``
    (split -> texts) and ``rejected`` (reason -> count of the samples that were judged to be of it).
    """
    best = np.nan_to_num(judgement.probabilities, nan=0.0).argmax(axis=1)
    of_domain: dict[str, Counter[str]] = {name: Counter() for name in domains}
    for j, ok, reason in zip(best.tolist(), judgement.ok.tolist(), reasons, strict=True):
        if ok and reason:
            of_domain[domains[j]][reason] += 1
    kept = Counter((text.domain, text.split) for text in texts)
    return {
        "samples": len(reasons),
        "rejected": dict(Counter(filter(None, reasons)).most_common()),
        "domains": {
            name: {
                "trained_on": name in trained_on,
                "own": {split: kept[name, split] for split in LEAST},
                "rejected": dict(of_domain[name].most_common()),
            }
            for name in domains
        },
    }


def _check_enough(name: str, entry: Mapping[str, Any], samples: int) -> None:
    if any(entry["own"][split] < least for split, least in LEAST.items()):
        lost = ", ".join(f"{count} {reason}" for reason, count in entry["rejected"].items())
        raise VersatuneError(
            f"domains.{name}: of {samples} texts that the base model wrote, "
            f"{entry['own']['train']} are left to train on, {entry['own']['steering']} to steer "
            f"and {entry['own']['report']} to report ({lost or 'none left out'}), and the domain "
            f"has no other rows. Draw more (probe.rounds.min_rounds){_remedy(entry)}, or give the "
            "domain rows."
        )


def _remedy(entry: Mapping[str, Any]) -> str:
    """What helps against the reason that most texts were left out for, beside drawing more."""
    reason = next(iter(entry["rejected"]), None)
    remedies = {
        "unsure": "lower probe.own_texts.min_confidence",
        "too_short": "lower probe.own_texts.min_tokens",
        "no_answer": "raise probe.sampling.max_new_tokens",
        **dict.fromkeys(
            ("garbage", "loop", "empty"),
            "take a base model that writes text (most of this one's is none)",
        ),
    }
    return f", {remedies[reason]}" if reason in remedies else ""
