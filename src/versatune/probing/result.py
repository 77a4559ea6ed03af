"""The probe's result: a JSON file with the shares, their intervals, and reasons to doubt them."""

from collections import Counter
from typing import Any

import numpy as np

from versatune.artifacts import FolderRef
from versatune.probing.audit import agreement, load_audit
from versatune.probing.config import FEW_ANSWERS, ProbeParams
from versatune.probing.estimate import Estimate, bounds, estimate_shares
from versatune.probing.judges.base import Judgement, Labelled
from versatune.probing.probe import facts_of
from versatune.probing.quantification import Correction, correct, response_matrix
from versatune.probing.shift import diagnose
from versatune.samplers.base import Sample

DECISIVE = ("too_wide", "few_answers", "shift", "not_judged")
"""Checks whose failure says that the shares may be far off; ``half_width`` says only that they are
not known as closely as was asked."""
FIRST_LINE = 200
"""Characters of a sampled text shown in the table."""


def knowledge_distribution(
    samples: list[Sample],
    judgement: Judgement,
    judge: FolderRef,
    facts: dict[str, Any],
    params: ProbeParams,
    base_model: str,
    data_shares: dict[str, float],
    audited: FolderRef | None = None,
) -> dict[str, Any]:
    """Shares per domain with 95 % intervals, and everything a reader needs to judge them.

    ``facts``: those of the samples' and the judgements' folders. Texts without a judgement are
    left out of the mean; ``worst_low`` and ``worst_high`` bound the share if all of them were
    elsewhere, or here. ``audited``: what a second judge said of a part of the samples; the shares
    are then corrected by it, and ``audit`` has the check of its own label shift. The rounds' shares
    are the first judge's in any case.
    """
    domains = judge.metadata["domains"]
    labelled = Labelled.load(judge)
    ok = judgement.ok
    judged = judgement.probabilities[ok]
    how = params.estimate
    audit = load_audit(audited, len(samples), len(domains)) if audited else None
    of_judged = audit.part(ok) if audit else None
    found = estimate_shares(
        judged, labelled, how.correction, how.bootstrap, params.seed, audit=of_judged
    )
    missing = 1 - float(ok.mean())
    shift = diagnose(judgement, labelled, found.share)
    second = None
    if audited and audit:
        second = {
            **{key: value for key, value in audited.metadata.items() if key != "of"},
            **agreement(judgement.probabilities, audit),
            "shift": None,
        }
        if second["accuracy"] is not None:  # else its answers count as true
            second["shift"] = diagnose(
                audit.judgement, audit.labelled, found.share, 1 / audit.chances
            )
    checked = checks(found, shift, second, facts["stopped"], params, missing, domains)
    return {
        "domains": {
            name: _domain(found, j, missing) | {"data_share": data_shares.get(name)}
            for j, name in enumerate(domains)
        },
        "n_samples": len(samples),
        "n_rejected": int((~ok).sum()),
        "rejected": dict(Counter(s for s in judgement.status if s != "ok")),
        "judge": judge.metadata["name"],
        "base_model": base_model,
        "seed": params.seed,
        "rounds": facts["rounds"],
        "round_shares": _round_shares(judgement, labelled, how.correction, facts["rounds"]),
        "stopped": facts["stopped"],
        "half_width": {
            "asked": params.rounds.half_width,
            "reached": float(found.half_widths.max()),
        },
        "correction": how.correction,
        "labelled_rows": len(labelled.labels),
        "judge_accuracy": judge.metadata["accuracy"],
        "response_matrix": np.round(
            response_matrix(labelled.probabilities, labelled.labels), 4
        ).tolist(),
        "samples": facts_of(samples) | {"begin_with": facts["begins"]},
        "audit": second,
        "shift": shift,
        "warnings": list(checked.values()),
        "doubts": {name: says for name, says in checked.items() if name in DECISIVE},
    }


def _round_shares(
    judgement: Judgement, labelled: Labelled, correction: Correction, rounds: int
) -> list[list[float]]:
    """What each of the T rounds alone would give; one without a judgement is left out."""
    ok = judgement.ok
    parts = [part[ok[part]] for part in np.array_split(np.arange(len(ok)), rounds)]
    known = (labelled.probabilities, labelled.labels)
    found = [correct(judgement.probabilities[p], *known, correction) for p in parts if len(p)]
    result: list[list[float]] = np.round(found, 6).tolist()
    return result


def checks(
    found: Estimate,
    shift: dict[str, Any],
    audit: dict[str, Any] | None,
    stopped: str,
    params: ProbeParams,
    missing: float,
    domains: list[str],
) -> dict[str, str]:
    """The checks that failed: name -> a sentence with what to do. Those of :data:`DECISIVE` put the
    shares in doubt.

    ``shift`` and ``audit`` as in the result; with an audit its own shift is what counts.
    """
    said: dict[str, str] = {}
    widest = float(found.half_widths.max())
    wide = [
        f"{d} ±{w:.3f}"
        for d, w in zip(domains, found.half_widths, strict=True)
        if w > params.estimate.too_wide
    ]
    if wide:
        remedy = _remedy(found, audit, params)
        said["too_wide"] = (
            f"intervals too wide to decide on: {', '.join(wide)}; {remedy} would narrow them."
        )
    elif widest > params.rounds.half_width and (audit or stopped == "limit"):
        said["half_width"] = (
            f"intervals reach up to ±{widest:.3f}, wider than probe.rounds.half_width asks; "
            f"{_remedy(found, audit, params)} would narrow them."
        )
    if audit and audit["answered"] < FEW_ANSWERS:
        said["few_answers"] = (
            f"the second judge answered about only {audit['answered']} samples: with so few the "
            "intervals contain the truth too seldom; a larger probe.audit.n is needed."
        )
    what_counts = audit["shift"] if audit else shift
    if what_counts and what_counts["doubtful"]:
        gap = what_counts["confidence_distance"]
        said["shift"] = (
            "the judge's confidence differs between samples and labelled rows (distance "
            f"{gap:.2f}), so these shares may be wrong: {_way_out(params, bool(audit))}."
        )
    if missing > 0.05:
        said["not_judged"] = (
            f"{missing:.1%} of the samples have no judgement; see worst_low, worst_high."
        )
    return said


def _way_out(params: ProbeParams, audited: bool) -> str:
    """Which parameters to change if the shares themselves are doubtful."""
    without = "set mixture.strategy.name: proportional"
    if audited:
        kind = params.audit.judge.kind
        return f"take another second judge (probe.audit.judge, now of kind {kind}), or {without}"
    wanted = 2 * FEW_ANSWERS
    return (
        f"let people or a served model check {wanted} samples (probe.audit.n, now "
        f"{params.audit.n}, and probe.audit.judge.kind), or {without}"
    )


def _remedy(found: Estimate, audit: dict[str, Any] | None, params: ProbeParams) -> str:
    """What narrows intervals that are wider than requested."""
    sampling = (found.raw_high - found.raw_low).max() / 2
    # a correction can't be surer than its labelled rows, or its audit, allow
    enough = found.half_widths.max() if audit else params.rounds.half_width
    if 2 * sampling >= enough:
        return "more samples (probe.rounds.max_rounds)"
    if audit is None:
        return "more labelled rows"
    if audit["shift"] is None:  # its answers count as true
        return "a larger probe.audit.n"
    return "a larger probe.audit.n, a better second judge or more labelled rows for it"


def table(
    samples: list[Sample],
    judgement: Judgement,
    domains: list[str],
    audited: FolderRef | None = None,
) -> dict[str, list[Any]]:
    """Columns of the table to browse, a row a sample: what it begins with and how it was judged.

    ``second``: the domain that a second judge named, where it was asked and could say.
    """
    filled = np.nan_to_num(judgement.probabilities, nan=0.0)
    best = filled.argmax(axis=1)
    ok = judgement.ok
    columns: dict[str, list[Any]] = {
        "index": [s.index for s in samples],
        "text": [_first_lines(s.text) for s in samples],
        "domain": [domains[b] if o else None for b, o in zip(best, ok, strict=True)],
        "confidence": [float(filled[i, b]) if ok[i] else None for i, b in enumerate(best.tolist())],
        "status": list(judgement.status),
        "flag": [s.flag for s in samples],
        "ended": [s.ended for s in samples],
        "n_tokens": [s.n_tokens for s in samples],
    }
    if audited:
        said = load_audit(audited, len(samples), len(domains)).judgement
        named = said.probabilities[said.ok].argmax(axis=1)
        second = np.full(len(samples), None, dtype=object)
        second[said.ok] = [domains[j] for j in named]
        columns["second"] = second.tolist()
    for j, domain in enumerate(domains):
        columns[f"p_{domain}"] = filled[:, j].tolist()
    return columns


def _domain(found: Estimate, j: int, missing: float) -> dict[str, float]:
    low, high = bounds(float(found.low[j]), float(found.high[j]), missing)
    return {
        "share": float(found.share[j]),
        "low": float(found.low[j]),
        "high": float(found.high[j]),
        "raw_share": float(found.raw[j]),
        "raw_low": float(found.raw_low[j]),
        "raw_high": float(found.raw_high[j]),
        "worst_low": low,
        "worst_high": high,
    }


def _first_lines(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= FIRST_LINE else flat[: FIRST_LINE - 1] + "…"
