"""The first rows of each domain, read and checked before anything is set up for good."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from versatune.data.accounts import Rejects
from versatune.data.collect import Collector
from versatune.data.config import CleanParams, DomainConfig
from versatune.data.leaks import LeakIndex, read_questions
from versatune.data.selection import HELD_OUT, RowStatus, decide
from versatune.data.sources import locate
from versatune.errors import VersatuneError

ROWS = 500
"""Rows that are read of each source."""


@dataclass(frozen=True)
class RowCheck:
    """What became of the first rows of a domain."""

    read: int = 0
    rejects: Rejects | None = None
    duplicates: int = 0
    """Rows that repeat an earlier one of these, exactly or nearly."""
    leaked: int = 0
    """Rows that hold a question of the domain's evaluation files."""
    questions: int = 0
    """Questions in the domain's evaluation files."""
    to_train: int = 0
    held_out: int = 0
    whole: bool = True
    """Whether these were all rows that there are."""
    problem: str | None = None
    """Why cleaning would stop on this domain."""


def check_rows(
    domains: Mapping[str, DomainConfig], params: CleanParams, rows: int = ROWS
) -> dict[str, RowCheck]:
    """Clean the first ``rows`` rows of each source as ingest would, and keep nothing.

    Each domain is cleaned alone: rows that repeat one of another domain are not noticed. Raises
    VersatuneError when a file is missing.
    """
    return {name: _check(name, config, params, rows) for name, config in domains.items()}


def _check(name: str, config: DomainConfig, params: CleanParams, rows: int) -> RowCheck:
    located = locate({name: config})[name]
    items = [question for path in located.evaluation for question in read_questions(path)]
    with tempfile.TemporaryDirectory() as folder:
        leaks = LeakIndex(items, params.leak_words)
        collector = Collector(Path(folder), params, leaks, at_most=rows)
        try:
            collector.add(name, located.origins)
        except VersatuneError as error:
            return RowCheck(problem=str(error))
        collected = collector.finish()
        tally = collected.tallies[0]
        whole = tally.read < rows  # of several sources together: then each of them has ended
        try:
            statuses = decide(collected.keys, {name: config}, params)
        except VersatuneError as error:
            return RowCheck(tally.read, tally.rejects, whole=whole, problem=str(error))
    count = {status: int((statuses == status).sum()) for status in RowStatus}
    return RowCheck(
        read=tally.read,
        rejects=tally.rejects,
        duplicates=count[RowStatus.EXACT] + count[RowStatus.NEAR],
        leaked=count[RowStatus.LEAKED],
        to_train=count[RowStatus.TRAIN],
        held_out=sum(count[status] for status in HELD_OUT),
        questions=len(items),
        whole=whole,
    )
