"""The first rows of each domain, read and checked before a project is written."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from versatune.data.accounts import Rejects, TokenNotes
from versatune.data.arrow import batches
from versatune.data.collect import Collector
from versatune.data.config import CleanParams, DomainConfig
from versatune.data.conversations import RejectedError
from versatune.data.leaks import LeakIndex, read_questions
from versatune.data.limits import check_losses
from versatune.data.selection import HELD_OUT, RowStatus, decide
from versatune.data.sources import locate
from versatune.errors import VersatuneError

if TYPE_CHECKING:
    from versatune.data.shards import Encoders

ROWS = 500
"""Rows that are read of each source."""

TOO_LONG = ("too_long", "prompt_too_long")
"""Reasons of tokenising that a larger ``tokenize.max_length`` removes."""


@dataclass(frozen=True)
class RowCheck:
    """The result of checking the first rows of a domain."""

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
    """Whether these are all rows of the domain."""
    dropped: Rejects | None = None
    """Rows that tokenising can't use, such as too long ones; None without a tokenizer."""
    problem: str | None = None
    """Why cleaning or tokenising would stop on this domain."""

    @property
    def too_long(self) -> bool:
        """Whether tokenising would stop, and longer rows would help."""
        lost = {} if self.dropped is None else self.dropped.counts
        return self.problem is not None and not lost.keys().isdisjoint(TOO_LONG)


def check_rows(
    domains: Mapping[str, DomainConfig],
    params: CleanParams,
    rows: int = ROWS,
    encoders: "Encoders | None" = None,
) -> dict[str, RowCheck]:
    """Clean the first ``rows`` rows of each source as ingest would, and keep nothing.

    ``encoders``: tokenise them, too. Each domain is cleaned alone: rows that repeat one of another
    domain are not noticed. Raises VersatuneError when a file is missing.
    """
    return {name: _check(name, config, params, rows, encoders) for name, config in domains.items()}


def _check(
    name: str, config: DomainConfig, params: CleanParams, rows: int, encoders: "Encoders | None"
) -> RowCheck:
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
        notes = None
        try:
            statuses = decide(collected.keys, {name: config}, params)
            notes = None if encoders is None else _tokenised(collected.parts[0], encoders)
            if notes is not None:
                cleaned = {"read": tally.read, "rejected": tally.rejects.as_dict()}
                check_losses({name: cleaned}, {name: notes}, params.max_reject_rate)
        except VersatuneError as error:
            dropped = None if notes is None else notes.dropped
            return RowCheck(
                tally.read, tally.rejects, whole=whole, dropped=dropped, problem=str(error)
            )
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
        dropped=None if notes is None else notes.dropped,
    )


def _tokenised(part: Path, encoders: "Encoders") -> TokenNotes:
    """How many rows of a part stay when they are tokenised, and why the others are dropped."""
    notes = TokenNotes()
    for batch in batches(part):
        columns = batch.to_pydict()
        for row, result in zip(columns["row"], encoders.encode(columns["messages"]), strict=True):
            if isinstance(result, RejectedError):
                notes.dropped.add(result.reason, row, result.detail)
            else:
                notes.rows += 1
    return notes
