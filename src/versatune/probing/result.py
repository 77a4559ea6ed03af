"""The probe's result: one JSON that says the shares, how sure they are, and why to doubt them."""

from collections import Counter
from typing import Any

import numpy as np

from versatune.artifacts import FolderRef
from versatune.probing.audit import agreement, load_audit
from versatune.probing.config import ProbeParams
from versatune.probing.estimate import Audit, Estimate, bounds, estimate_shares, point_estimate
from versatune.probing.judges.base import Judgement, Labelled
from versatune.probing.probe import facts_of
from versatune.probing.quantification import response_matrix
from versatune.probing.sampling import Sample
from versatune.probing.shift import diagnose

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
    and the check of the label shift are then about that judge.
    """
    domains = judge.facts["domains"]
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
    shift = (
        diagnose(audit.judgement, audit.labelled, found.share, 1 / audit.chances)
        if audit
        else diagnose(judgement, labelled, found.share)
    )
    return {
        "domains": {
            name: _domain(found, j, missing) | {"data_share": data_shares.get(name)}
            for j, name in enumerate(domains)
        },
        "n_samples": len(samples),
        "n_rejected": int((~ok).sum()),
        "rejected": dict(Counter(s for s in judgement.status if s != "ok")),
        "judge": judge.facts["name"],
        "base_model": base_model,
        "seed": params.seed,
        "rounds": facts["rounds"],
        "round_shares": _round_shares(judgement, labelled, audit, params, facts["rounds"]),
        "stopped": facts["stopped"],
        "half_width": {
            "asked": params.rounds.half_width,
            "reached": float(found.half_widths.max()),
        },
        "correction": how.correction,
        "labelled_rows": len(labelled.labels),
        "judge_accuracy": judge.facts["accuracy"],
        "response_matrix": np.round(
            response_matrix(labelled.probabilities, labelled.labels), 4
        ).tolist(),
        "samples": facts_of(samples) | {"begin_with": facts["begins"]},
        "audit": audited.facts | agreement(judgement.probabilities, audit)
        if audited and audit
        else None,
        "shift": shift,
        "warnings": warnings(found, shift, facts["stopped"], params, missing, domains),
    }


def _round_shares(
    judgement: Judgement,
    labelled: Labelled,
    audit: Audit | None,
    params: ProbeParams,
    rounds: int,
) -> list[list[float]]:
    """What each of the T rounds would give by itself; one without a judgement is left out."""
    ok = judgement.ok
    parts = [part[ok[part]] for part in np.array_split(np.arange(len(ok)), rounds)]
    found = [
        point_estimate(
            judgement.probabilities[part],
            labelled,
            params.estimate.correction,
            audit.part(part) if audit else None,
        )
        for part in parts
        if len(part)
    ]
    return np.round(found, 6).tolist()


def warnings(
    found: Estimate,
    shift: dict[str, Any],
    stopped: str,
    params: ProbeParams,
    missing: float,
    domains: list[str],
) -> list[str]:
    """Sentences about what limits the result; empty when nothing does."""
    said = []
    wide = [
        f"{d} +-{w:.3f}"
        for d, w in zip(domains, found.half_widths, strict=True)
        if w > params.estimate.too_wide
    ]
    if wide:
        said.append(f"intervals too wide to decide on: {', '.join(wide)}.")
    if params.audit.n and found.half_widths.max() > params.rounds.half_width:
        said.append(
            f"audited intervals reach up to +-{found.half_widths.max():.3f}, further than "
            "probe.rounds.half_width asks: a larger probe.audit.n would narrow them."
        )
    elif stopped == "limit":
        # with a correction, more samples can't help beyond what the labelled rows allow
        sampling = (found.raw_high - found.raw_low).max() / 2
        cause = "more labelled rows" if 2 * sampling < params.rounds.half_width else "more samples"
        said.append(
            f"stopped at probe.rounds.max_rounds with intervals up to "
            f"+-{found.half_widths.max():.3f}, wider than asked; {cause} would narrow them."
        )
    if shift["doubtful"]:
        said.append(
            "sampled texts are judged unlike the labelled rows (confidence distance "
            f"{shift['confidence_distance']:.2f}): the correction's assumption is doubtful; "
            + (
                "take another second judge."
                if params.audit.n
                else "let a second judge audit some of them (probe.audit)."
            )
        )
    if missing > 0.05:
        said.append(f"{missing:.1%} of the samples have no judgement; see worst_low, worst_high.")
    return said


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
