"""Nodes of the probe: thin calls of versatune.probing."""

import logging
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import SecretStr

from versatune import tracking
from versatune.artifacts import FolderRef
from versatune.data.config import Domains
from versatune.modeling.checkpoints import CheckpointRef
from versatune.probing import judges, known, probe
from versatune.probing.config import ProbeParams
from versatune.probing.estimate import Estimate
from versatune.work import Piece, not_needed

logger = logging.getLogger(__name__)


def train_judge(
    clean_data: FolderRef,
    domains: Domains,
    params: ProbeParams,
    judge_key: SecretStr,
    kept_answers: Path,
    samples: FolderRef,
) -> Piece:
    """Make the judge ready and measure its errors on held-out rows."""
    if params.known_distribution:
        return not_needed("leave", probe.LEFT_OUT)
    about = probe.about_judge(params, kept_answers, judge_key, domains, samples)
    return judges.train_judge(clean_data, params.judge, about)


def draw_samples(base_model: dict[str, Any], params: ProbeParams, sampler_key: SecretStr) -> Piece:
    """Draw the samples of the rounds before the first check."""
    from versatune.samplers.make import make_sampler

    if params.known_distribution:
        return not_needed("leave", probe.LEFT_OUT)
    base, key = CheckpointRef.from_entry(base_model), sampler_key.get_secret_value()
    return probe.draw_samples(make_sampler(base, params.sampling, key), params)


def judge_samples(
    base_model: dict[str, Any],
    samples: FolderRef,
    judge: FolderRef,
    params: ProbeParams,
    judge_key: SecretStr,
    sampler_key: SecretStr,
    kept_answers: Path,
) -> Piece:
    """Judge the samples, and draw more, round by round, until the intervals are narrow enough."""
    from versatune.samplers.make import make_sampler

    if params.known_distribution:
        return not_needed("leave", probe.LEFT_OUT)
    tracking.log_metrics({"probe/judge_accuracy": judge.metadata["accuracy"]})
    names = judge.metadata["domains"]
    about = probe.about_judge(params, kept_answers, judge_key)

    def on_round(number: int, found: Estimate) -> None:
        for name, share, half in zip(names, found.share, found.half_widths, strict=True):
            tracking.log_metrics(
                {f"probe/share/{name}": share, f"probe/half_width/{name}": half}, step=number
            )

    base = CheckpointRef.model_validate(base_model)
    return probe.judge_in_rounds(
        make_sampler(base, params.sampling, sampler_key.get_secret_value()),
        samples,
        judge,
        params,
        lambda: judges.open_judge(judge, params.judge, about),
        on_round,
    )


def train_auditor(
    clean_data: FolderRef,
    domains: Domains,
    params: ProbeParams,
    audit_key: SecretStr,
    kept_answers: Path,
    samples: FolderRef,
) -> Piece:
    """Make a second judge ready, when there is to be an audit."""
    from versatune.probing.audit import KEY

    if params.known_distribution or not params.audit.n:
        return not_needed("leave")
    about = probe.about_judge(params, kept_answers, audit_key, domains, samples, key=KEY)
    return judges.train_judge(clean_data, params.audit.judge, about)


def audit_samples(
    auditor: FolderRef,
    samples: FolderRef,
    judgements: FolderRef,
    params: ProbeParams,
    audit_key: SecretStr,
    kept_answers: Path,
) -> Piece:
    """Let the second judge look at some of the samples, when there is to be an audit."""
    from versatune.probing import audit

    if params.known_distribution or not params.audit.n:
        return not_needed("leave")
    about = probe.about_judge(params, kept_answers, audit_key, key=audit.KEY)
    return audit.run_audit(auditor, samples, judgements, params, about)


def estimate_knowledge(
    base_model: dict[str, Any],
    clean_data: FolderRef,
    judge: FolderRef,
    samples: FolderRef,
    judgements: FolderRef,
    audit: FolderRef,
    domains: Domains,
    params: ProbeParams,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Shares with intervals, corrected for the judges' errors, and the table to browse."""
    from versatune.probing import own_texts, result
    from versatune.probing.audit import check_audit

    if params.known_distribution:
        shares = known.known_distribution(params.known_distribution, list(domains.active))
        return shares, pd.DataFrame(columns=["index", "text", "domain", "confidence", "status"])
    drawn, judged = probe.load_probe(samples, judgements)
    audited = audit if params.audit.n else None
    if audited:
        check_audit(audited, samples, params)
    rows = clean_data.metadata["rows"]["train"]
    distribution = result.knowledge_distribution(
        drawn,
        judged,
        judge,
        {**samples.metadata, **judgements.metadata},
        params,
        base_model["name"],
        {name: count / sum(rows.values()) for name, count in rows.items()},
        audited,
    )
    distribution["warnings"] += own_texts.unmeasured(clean_data)
    for warning in distribution["warnings"]:
        logger.warning("probe: %s", warning)
    final = {f"probe/final/{n}": d["share"] for n, d in distribution["domains"].items()}
    tracking.log_metrics(final | {"probe/doubts": len(distribution["doubts"])})
    tracking.set_tags({"probe.doubts": ", ".join(distribution["doubts"]) or "none"})
    if distribution["audit"]:
        tracking.log_metrics({"probe/audit/alike": distribution["audit"]["alike"]})
    return distribution, pd.DataFrame(
        result.table(drawn, judged, judge.metadata["domains"], audited)
    )
