"""Which rows stay and on which side of the split they fall: decisions on columns of keys.

Every draw is a hash of the row (or prompt) and the seed, so it stays the same for a row when
others are added or removed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from versatune.data.config import CleanParams, DomainConfig
from versatune.data.duplicates import Signatures, near_duplicates
from versatune.data.text import U64, Ints, uniform
from versatune.errors import VersatuneError

Mask = npt.NDArray[np.bool_]
Small = npt.NDArray[np.int16]
RowStatuses = npt.NDArray[np.int8]


class RowStatus(IntEnum):
    """What happens to a row that passed the checks."""

    TRAIN = 0
    STEERING = 1
    REPORT = 2
    EXACT = 3
    NEAR = 4
    LEAKED = 5
    WEIGHT = 6
    LIMIT = 7


HELD_OUT = (RowStatus.STEERING, RowStatus.REPORT)


@dataclass(frozen=True)
class Keys:
    """One number a row for each thing decisions are made by; all of shape (rows,)."""

    domain: Small
    source: Small
    """Index of the source within its domain."""
    row: U64
    """Stands for the normalised conversation."""
    prompt: U64
    """Stands for the normalised first prompt."""
    leaked: Mask
    answer: U64
    """Stands for a short answer; 0 for all long ones."""
    signature: Signatures | None
    """MinHash signatures, shape (rows, 128); None when near duplicates stay."""


@dataclass(frozen=True)
class Duplicates:
    """Rows that repeat another; both of shape (rows,)."""

    original: Ints
    """The earlier row that stays, -1 where a row repeats none."""
    near: Mask
    """Whether the two are near duplicates, not equal."""


def find_duplicates(keys: Keys, params: CleanParams) -> Duplicates:
    """The rows that repeat an earlier one, of whichever domain; rows that leak are left aside."""
    original = exact_duplicates(keys.row, ~keys.leaked)
    near = np.full(len(original), -1, dtype=np.int64)
    if keys.signature is not None and params.near_duplicate_threshold is not None:
        alive = ~keys.leaked & (original < 0)
        near = near_duplicates(keys.signature, keys.answer, alive, params.near_duplicate_threshold)
    return Duplicates(np.maximum(original, near), near >= 0)


def decide(
    keys: Keys,
    domains: Mapping[str, DomainConfig],
    params: CleanParams,
    duplicates: Duplicates | None = None,
) -> RowStatuses:
    """The status of every row; shape (rows,), values of :class:`RowStatus`.

    ``duplicates``: those of :func:`find_duplicates`, found here when left out.
    Raises VersatuneError when a domain has no rows left or can't be split.
    """
    statuses = np.full(len(keys.row), RowStatus.TRAIN, dtype=np.int8)
    statuses[keys.leaked] = RowStatus.LEAKED
    duplicates = duplicates or find_duplicates(keys, params)
    statuses[duplicates.original >= 0] = RowStatus.EXACT
    statuses[duplicates.near] = RowStatus.NEAR
    draw = uniform(keys.row, params.seed)
    for d, (name, config) in enumerate(domains.items()):
        mine = keys.domain == d
        weights = [source.weight for source in config.sources]
        if None not in weights:
            out = left_out_by_weight(
                keys.source, draw, mine & (statuses == RowStatus.TRAIN), [w or 0.0 for w in weights]
            )
            statuses[out] = RowStatus.WEIGHT
        limit = config.max_rows or params.max_rows
        if limit is not None:
            statuses[left_out_by_limit(draw, mine & (statuses == RowStatus.TRAIN), limit)] = (
                RowStatus.LIMIT
            )
        if not config.only_own and not (mine & (statuses == RowStatus.TRAIN)).any():
            lost = _lost(statuses[mine], _others(keys, duplicates, list(domains), d))
            raise VersatuneError(f"domains.{name}: no rows are left ({lost or 'none were sound'}).")
    fractions = [c.validation_fraction or params.validation_fraction for c in domains.values()]
    alive = statuses == RowStatus.TRAIN
    at_least = params.min_validation_rows
    statuses[alive] = divided(keys, alive, fractions, at_least, params.seed + 1)[alive]
    for d, (name, config) in enumerate(domains.items()):
        mine = alive & (keys.domain == d)
        train, *held = ((statuses[mine] == s).sum() for s in (RowStatus.TRAIN, *HELD_OUT))
        if not config.only_own and not (train > 0 and min(held) >= at_least):
            lost = _lost(statuses[keys.domain == d], _others(keys, duplicates, list(domains), d))
            raise VersatuneError(
                f"domains.{name}: {mine.sum()} rows with {len(np.unique(keys.prompt[mine]))} "
                f"different prompts{f' ({lost})' if lost else ''} can't be divided in three: rows "
                "to train on, and at least "
                f"{at_least} each held out for steering and for the report; "
                "add rows, or lower ingest.min_validation_rows or validation_fraction. (A document "
                "stays whole on one side: make several of a long text, or set the source's "
                "`format` to lines if each line is one.)"
            )
    return statuses


_LOST = {
    RowStatus.EXACT: "exact duplicates",
    RowStatus.NEAR: "near duplicates",
    RowStatus.LEAKED: "leaked from evaluation files",
    RowStatus.WEIGHT: "left out by weight",
    RowStatus.LIMIT: "left out by limit",
}


def _lost(statuses: RowStatuses, others: Mapping[str, int]) -> str:
    """Which of a domain's rows were left out; ``others``: how many repeat one of which domain."""
    counts = {words: int((statuses == status).sum()) for status, words in _LOST.items()}
    lost = ", ".join(f"{n} {words}" for words, n in counts.items() if n)
    of = ", ".join(f"{n} of {other}" for other, n in others.items() if n)
    return lost + (f"; duplicates of other domains: {of}" if of else "")


def _others(
    keys: Keys, duplicates: Duplicates, names: Sequence[str], domain: int
) -> dict[str, int]:
    repeats = (keys.domain == domain) & (duplicates.original >= 0)
    of = keys.domain[duplicates.original[repeats]]
    return {name: int((of == i).sum()) for i, name in enumerate(names) if i != domain}


def exact_duplicates(rows: U64, alive: Mask) -> Ints:
    """The first row among ``alive`` that a later one equals, in this or in an earlier domain.

    -1 for the first ones, and for rows that are not ``alive``; shape (rows,).
    """
    where = np.flatnonzero(alive)
    _, first, inverse = np.unique(rows[where], return_index=True, return_inverse=True)
    original = np.full(len(rows), -1, dtype=np.int64)
    original[where] = where[first][inverse]
    original[original == np.arange(len(rows))] = -1
    return original


def left_out_by_weight(
    source: Small, draw: npt.NDArray[np.float64], alive: Mask, weights: Sequence[float]
) -> Mask:
    """Rows of one domain to leave out so that its sources stand in exactly these proportions.

    The largest subset is kept: with n_s rows and weights w_s of sum 1, source s keeps the
    floor(w_s * min(n_s / w_s)) rows of smallest ``draw``.
    """
    share = np.asarray(weights, dtype=np.float64) / np.sum(weights)
    rows = [np.flatnonzero(alive & (source == s)) for s in range(len(share))]
    total = min(len(r) / w for r, w in zip(rows, share, strict=True) if w > 0)
    out = np.zeros(len(source), dtype=bool)
    for r, w in zip(rows, share, strict=True):
        kept = int(np.floor(w * total + 1e-9))
        out[r[np.argsort(draw[r], kind="stable")[kept:]]] = True
    return out


def left_out_by_limit(draw: npt.NDArray[np.float64], alive: Mask, limit: int) -> Mask:
    """All rows of one domain but the ``limit`` of smallest ``draw``."""
    rows = np.flatnonzero(alive)
    out = np.zeros(len(draw), dtype=bool)
    out[rows[np.argsort(draw[rows], kind="stable")[limit:]]] = True
    return out


def divided(
    keys: Keys, alive: Mask, fractions: Sequence[float], at_least: int, seed: int
) -> RowStatuses:
    """TRAIN, STEERING or REPORT for each row, shape (rows,): whole prompts, never divided.

    A prompt is held out when its draw lies below the fraction f of its (first) domain: for steering
    below f / 2, for the report above. A domain with fewer than ``at_least`` rows in either takes
    further prompts, smallest draw first, from training, whose last prompt stays; then from the
    other of the two, as far as that has more than ``at_least``. Prompts that stand in other domains
    too are moved last: that would undo what was decided there.
    """
    prompts, first, inverse = np.unique(keys.prompt, return_index=True, return_inverse=True)
    draw = uniform(prompts, seed)
    limit = np.asarray(fractions)[keys.domain[first]]
    part = np.full(len(prompts), RowStatus.TRAIN, dtype=np.int8)
    part[draw < limit] = RowStatus.REPORT
    part[draw < limit / 2] = RowStatus.STEERING
    elsewhere = keys.domain != keys.domain[first][inverse]
    shared = np.bincount(inverse[elsewhere], minlength=len(prompts)) > 0
    for d in range(len(fractions)):
        rows = np.flatnonzero(alive & (keys.domain == d))
        count = np.bincount(inverse[rows], minlength=len(prompts))
        mine = np.flatnonzero(count)
        order = mine[np.lexsort((draw[mine], shared[mine]))]
        if len(order) > 1 and (part[order] != RowStatus.TRAIN).all():
            own = order[~shared[order]]
            part[own[-1] if len(own) else order[-1]] = RowStatus.TRAIN
        for donor, leave in ((RowStatus.TRAIN, 1), (None, at_least)):
            for status, other in (HELD_OUT, HELD_OUT[::-1]):
                _fill(
                    part, order, count, status, other if donor is None else donor, at_least, leave
                )
    return np.asarray(part[inverse], dtype=np.int8)


def _fill(
    part: RowStatuses,
    order: npt.NDArray[np.int64],
    count: npt.NDArray[np.int64],
    status: RowStatus,
    donor: RowStatus,
    at_least: int,
    leave: int,
) -> None:
    """Move prompts of ``order`` from ``donor`` to ``status`` until that has ``at_least`` rows.

    ``donor`` keeps ``leave`` rows. ``count``: rows of each prompt.
    """
    missing = at_least - count[order[part[order] == status]].sum()
    given = order[part[order] == donor]
    spare = count[given].sum() - leave
    for prompt in given:
        if missing <= 0:
            return
        if count[prompt] <= spare:
            part[prompt] = status
            missing -= count[prompt]
            spare -= count[prompt]
