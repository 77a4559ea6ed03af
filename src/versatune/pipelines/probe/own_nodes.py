"""Nodes of the base model's own texts: which samples stand for rows, and how many do."""

import logging
from typing import Any

from versatune import tracking
from versatune.artifacts import FolderRef
from versatune.data.config import CleanParams, Domains
from versatune.probing import probe
from versatune.probing.config import ProbeParams
from versatune.work import Piece, not_needed

logger = logging.getLogger(__name__)


def collect_own_texts(
    samples: FolderRef,
    judge: FolderRef,
    judgements: FolderRef,
    domains: Domains,
    ingest: CleanParams,
    params: ProbeParams,
) -> Piece:
    """Which samples can stand for rows of their domain: judged with confidence, single, sound."""
    from versatune.probing import own_texts

    if params.known_distribution:
        return not_needed("leave", probe.LEFT_OUT)
    names = judge.metadata["domains"]
    return own_texts.own_texts(samples, judgements, names, domains.active, ingest, params.own_texts)


def report_own_texts(own_texts: FolderRef) -> dict[str, Any]:
    """How many rows of each domain are the model's own, and why samples were left out."""
    from versatune.probing import own_texts as library

    report = library.read_report(own_texts)
    for name, entry in report["domains"].items():
        tracking.log_metrics({f"probe/own_texts/{name}": sum(entry["own"].values())})
        if entry["trained_on"]:
            logger.info("%s: %s", name, library.in_words(entry))
    return report
