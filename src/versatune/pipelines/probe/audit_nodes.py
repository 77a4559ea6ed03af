"""Nodes of the probe's second judge."""

from pathlib import Path

from pydantic import SecretStr

from versatune.artifacts import FolderRef
from versatune.data.config import Domains
from versatune.probing import judges, probe
from versatune.probing.config import ProbeParams
from versatune.work import Piece, not_needed


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
