"""The report of ingest: what happened to every row that was read."""

import logging
from typing import Any

from versatune.artifacts import FolderRef, read_json
from versatune.data.accounts import Rejects
from versatune.data.clean import REPORT, SPLITS, summary
from versatune.data.tokenize import EXAMPLES

logger = logging.getLogger(__name__)

UNITS = ("tokens", "supervised_tokens")


def ingest_report(clean: FolderRef, tokenized: FolderRef) -> dict[str, Any]:
    """Join what cleaning and tokenising noted.

    Returns ``data_fingerprint``, ``max_length`` and ``domains``: per domain ``read``,
    ``rejected`` (reason -> ``count`` and ``examples`` with file:line; rows that tokenising dropped
    are among them, as ``too_long`` and so on), ``duplicates`` (``exact``, ``near``),
    ``duplicates_of`` (those of them that repeat another domain's rows: domain -> ``count`` and
    ``examples``), ``leaked``, ``left_out_by_weight``, ``left_out_by_limit``, ``truncated``,
    ``ignored_columns`` (name -> rows that have it), ``numbers_as_text`` (field -> rows in which it
    is a number), ``documents`` (how many of the rows that stay are no conversations), and for
    ``train``, ``steering``, ``report`` and ``validation`` (the last two together) the ``*_rows``,
    ``*_examples`` (rows of the store: more where the template makes several of a conversation, or a
    document was cut), ``*_tokens`` and ``*_supervised_tokens``, and ``examples``: rows as they are
    trained on, see ``preview``. For every domain

        read = rejected + duplicates + leaked + left out + train_rows + validation_rows
    """
    cleaned = read_json(clean.path / REPORT)
    tokenised = read_json(tokenized.path / REPORT)
    shown = read_json(tokenized.path / EXAMPLES)
    domains = {}
    for name, entry in cleaned.items():
        counts = {
            f"{split}_{unit}": tokenized.metadata[split][name][unit]
            for split in SPLITS
            for unit in UNITS
        }
        kept = (f"{split}_{unit}" for split in SPLITS for unit in ("rows", "examples"))
        known = {**tokenised[name], **counts}
        held_out = {  # those that steer and those that are reported
            f"validation_{unit}": known[f"steering_{unit}"] + known[f"report_{unit}"]
            for unit in ("rows", "examples", *UNITS)
        }
        domains[name] = {
            **entry,
            "rejected": Rejects.of(entry["rejected"], tokenised[name]["dropped"]).as_dict(),
            **{key: tokenised[name][key] for key in ("truncated", "documents", *kept)},
            **counts,
            **held_out,
            "examples": shown[name],
        }
    for line in in_words(domains):
        logger.info("%s", line)
    return {
        "data_fingerprint": tokenized.metadata["data_fingerprint"],
        "max_length": tokenized.metadata["max_length"],
        "domains": domains,
    }


def in_words(domains: dict[str, Any]) -> list[str]:
    """A log line on all domains, and one on each domain with rejected rows.

    Rows that repeat another domain's count as rejected here.
    """
    read, train, steering, report = (
        sum(entry[key] for entry in domains.values())
        for key in ("read", *(f"{split}_rows" for split in SPLITS))
    )
    lost = read - train - steering - report
    each = ", ".join(f"{name} {entry['train_rows']:,}" for name, entry in domains.items())
    return [
        f"{read:,} rows read, {lost:,} left out; {steering:,} steering, {report:,} report, "
        f"{train:,} train: {each}",
        *(
            summary(name, entry)
            for name, entry in domains.items()
            if entry["rejected"] or entry["duplicates_of"]
        ),
    ]
