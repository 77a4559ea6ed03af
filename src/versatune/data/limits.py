"""How many rows a domain may lose, and the warnings about those that are left."""

import logging
from collections.abc import Mapping
from typing import Any

from versatune.data.accounts import Rejects, TokenNotes
from versatune.errors import VersatuneError

logger = logging.getLogger(__name__)

FEW_TRAIN, FEW_VALIDATION = 20, 4
"""A domain with fewer rows gets a warning."""


def check_rows(found: dict[str, TokenNotes], split: str, max_length: int) -> None:
    """Raise VersatuneError when tokenising left a domain no rows in a split."""
    for name, notes in found.items():
        if not notes.rows:
            raise VersatuneError(
                f"domains.{name}: no {split} rows are left after tokenising to "
                f"tokenize.max_length {max_length}: {notes.dropped.worst()}."
            )


def check_losses(
    cleaned: Mapping[str, Mapping[str, Any]], tokenised: Mapping[str, TokenNotes], limit: float
) -> None:
    """Raise VersatuneError when a domain lost more than ``limit`` of its rows in both stages.

    ``cleaned``: the report of cleaning, where rows were rejected; ``tokenised``: what was dropped
    of those that stayed. Duplicates and rows left out are not tokenised, so what is dropped is
    counted up to all sound rows: where there are none of these the two are simply added.
    """
    for name, entry in cleaned.items():
        rejects = Rejects.of(entry["rejected"])
        notes = tokenised[name]
        dropped = notes.dropped.total
        sound = entry["read"] - rejects.total
        lost = rejects.total + dropped * sound / max(notes.rows + dropped, 1)
        if not dropped or lost <= limit * entry["read"] + 1e-9:
            continue
        share = lost / entry["read"]
        every = Rejects.of(entry["rejected"], notes.dropped.as_dict())
        help_ = {"too_long": "set tokenize.overflow: truncate, ", "prompt_too_long": ""}
        ways = [way for reason, way in help_.items() if reason in notes.dropped.counts]
        advice = f"Raise tokenize.max_length, {ways[0]}mend" if ways else "Mend"
        told = (
            f"{every.total} of {entry['read']} rows can't be used ({share:.1%} of what was read), "
            f"{dropped} of them found in tokenising"
        )
        if sound > notes.rows + dropped:  # duplicates, weights and limits left some out
            before = f" together with {rejects.total} rejected before" if rejects.total else ""
            told = (
                f"{dropped} of the {notes.rows + dropped} rows that were tokenised can't be used"
                f"{before and f' ({share:.1%} of all rows{before})'}"
            )
        raise VersatuneError(
            f"domains.{name}: {told}: {every.worst()}. {advice} the rows, or raise "
            f"ingest.max_reject_rate (now {limit:g}) to go on without them."
        )


def tell_kept(name: str, notes: TokenNotes, kept: Mapping[str, int]) -> None:
    """Log the rows that a domain lost in tokenising, and warn if few are left."""
    train = kept["train_rows"]
    validation = kept["steering_rows"] + kept["report_rows"]
    if notes.dropped.total:
        logger.info(
            "%s: tokenising dropped %s rows, first %s; %d are left to train, %d to validate",
            name,
            notes.dropped.summary(),
            notes.dropped.worst(1).rsplit("first ", 1)[-1],
            train,
            validation,
        )
    if train < FEW_TRAIN or validation < FEW_VALIDATION:
        logger.warning(
            "domains.%s has few rows: %d to train on, %d to measure. A loss of so few rows says "
            "little, and shares that follow it follow chance. Add rows, or remove the domain.",
            name,
            train,
            validation,
        )
