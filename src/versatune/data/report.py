"""The account of ingest: where every row that was read went."""

from typing import Any

from versatune.artifacts import FolderRef, read_json
from versatune.data.accounts import EXAMPLES, Rejects
from versatune.data.clean import REPORT, SPLITS

UNITS = ("rows", "tokens", "supervised_tokens")


def ingest_report(clean: FolderRef, tokenized: FolderRef) -> dict[str, Any]:
    """Join what cleaning and tokenising noted.

    Returns ``data_fingerprint``, ``max_length`` and ``domains``: per domain ``read``,
    ``rejected`` (reason -> ``count`` and ``examples`` with file:line; rows that tokenising dropped
    are among them, as ``too_long`` and so on), ``duplicates`` (``exact``, ``near``), ``leaked``,
    ``left_out_by_weight``, ``left_out_by_limit``, ``truncated``, and for ``train``, ``steering``,
    ``report`` and ``validation`` (the last two together) the ``*_rows``, ``*_tokens`` and
    ``*_supervised_tokens``. For every domain

        read = rejected + duplicates + leaked + left out + train_rows + validation_rows
    """
    cleaned = read_json(clean.path / REPORT)
    dropped = read_json(tokenized.path / REPORT)
    domains = {}
    for name, entry in cleaned.items():
        rejects = Rejects(keep=sum(r["count"] for r in entry["rejected"].values()) + EXAMPLES)
        rejects.merge(entry["rejected"])
        rejects.merge(dropped[name]["dropped"])
        counts = {
            f"{split}_{unit}": tokenized.facts[split][name][unit]
            for split in SPLITS
            for unit in UNITS
        }
        counts |= {
            f"validation_{unit}": counts[f"steering_{unit}"] + counts[f"report_{unit}"]
            for unit in UNITS
        }
        domains[name] = {
            **entry,
            "rejected": rejects.as_dict(),
            "truncated": dropped[name]["truncated"],
            **counts,
        }
    return {
        "data_fingerprint": tokenized.facts["data_fingerprint"],
        "max_length": tokenized.facts["max_length"],
        "domains": domains,
    }
