"""Nodes of the probe: thin calls of versatune.probing."""

import logging

import pandas as pd
from pydantic import SecretStr

from versatune import tracking
from versatune.artifacts import FolderRef
from versatune.modeling.checkpoints import CheckpointRef
from versatune.pipelines.probe.params import Domains, ProbeParams

logger = logging.getLogger(__name__)


def train_judge(
    clean_data: FolderRef, domains: Domains, params: ProbeParams, judge_key: SecretStr
) -> FolderRef:
    """Make the judge ready and measure its errors on held-out rows."""
    from versatune.probing import judges
    from versatune.probing.probe import ANSWERS, JUDGE, skipped

    if params.known_distribution:
        return skipped(params.folder / JUDGE)
    descriptions = {name: config.description for name, config in domains.active.items()}
    ref = judges.train_judge(
        params.folder / JUDGE,
        clean_data,
        params.judge,
        descriptions,
        params.seed,
        params.folder / ANSWERS,
        judge_key.get_secret_value(),
    )
    tracking.log_metrics({"probe/judge_accuracy": ref.facts["accuracy"]})
    return ref


def sample_and_judge(
    base_model: dict,
    judge: FolderRef,
    params: ProbeParams,
    judge_key: SecretStr,
    sampler_key: SecretStr,
) -> tuple[FolderRef, FolderRef]:
    """Draw samples from the base model and judge them, round by round, until it is enough."""
    from versatune.probing import judges, probe

    if params.known_distribution:
        folders = (params.folder / probe.SAMPLES, params.folder / probe.JUDGEMENTS)
        return probe.skipped(folders[0]), probe.skipped(folders[1])
    names = judge.facts["domains"]

    def on_round(number: int, found: probe.Estimate) -> None:
        for name, share, half in zip(names, found.share, found.half_widths, strict=True):
            tracking.log_metrics(
                {f"probe/share/{name}": share, f"probe/half_width/{name}": half}, step=number
            )

    key = judge_key.get_secret_value()
    return probe.run_probe(
        CheckpointRef.noted(base_model),
        judge,
        params,
        lambda keep: judges.open_judge(judge, params.judge, keep, key),
        on_round,
        sampler_key.get_secret_value(),
    )


def audit_samples(
    clean_data: FolderRef,
    samples: FolderRef,
    judgements: FolderRef,
    domains: Domains,
    params: ProbeParams,
    audit_key: SecretStr,
) -> FolderRef:
    """Let a second judge look at some of the samples, when there is to be an audit."""
    from versatune.probing import audit

    if params.known_distribution or not params.audit.n:
        return audit.no_audit(params)
    descriptions = {name: config.description for name, config in domains.active.items()}
    return audit.run_audit(
        clean_data, samples, judgements, params, descriptions, audit_key.get_secret_value()
    )


def estimate(
    base_model: dict,
    clean_data: FolderRef,
    judge: FolderRef,
    samples: FolderRef,
    judgements: FolderRef,
    audit: FolderRef,
    domains: Domains,
    params: ProbeParams,
) -> tuple[dict, pd.DataFrame]:
    """Shares with intervals, corrected for the judges' errors, and the table to browse."""
    from versatune.probing import known, probe, result
    from versatune.probing.audit import check_audit

    if params.known_distribution:
        shares = known.known_distribution(params.known_distribution, list(domains.active))
        return shares, pd.DataFrame(columns=["index", "text", "domain", "confidence", "status"])
    drawn, judged = probe.load_probe(samples, judgements)
    audited = audit if params.audit.n else None
    if audited:
        check_audit(audited, samples, params)
    rows = clean_data.facts["rows"]["train"]
    distribution = result.knowledge_distribution(
        drawn,
        judged,
        judge,
        {**samples.facts, **judgements.facts},
        params,
        base_model["name"],
        {name: count / sum(rows.values()) for name, count in rows.items()},
        audited,
    )
    for warning in distribution["warnings"]:
        logger.warning("probe: %s", warning)
    final = {f"probe/final/{n}": d["share"] for n, d in distribution["domains"].items()}
    tracking.log_metrics(final)
    if distribution["audit"]:
        tracking.log_metrics({"probe/audit/alike": distribution["audit"]["alike"]})
    return distribution, pd.DataFrame(result.table(drawn, judged, judge.facts["domains"], audited))
