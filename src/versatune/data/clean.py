"""Cleaning: from the sources of all domains to valid, deduplicated, unleaked rows in three splits.

:func:`clean` checks every row (``collect``), removes rows that leak evaluation items, duplicates
and near duplicates, keeps the wanted proportions and limits, divides prompts between training,
steering and report (``selection``), and writes what stays. ``report.json`` accounts for each row
read.

Features and their keys (see ``config.CleanParams`` and ``config.Source``): broken rows
``max_reject_rate``, ``max_line_bytes``; duplicates ``near_duplicate_threshold``; leaks
``leak_words``; sources' proportions ``weight``; size ``max_rows``; split ``validation_fraction``,
``min_validation_rows``, ``seed``.

Raises VersatuneError: a file is missing, binary or of an unknown format; columns fit no shape; too
many broken rows; a domain has no rows left, or too few prompts for three splits.
"""

import hashlib
import logging
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from versatune.artifacts import INPUTS, write_json
from versatune.data.accounts import Foreign, Rejects
from versatune.data.advice import field_of
from versatune.data.arrow import ShardWriter, batches
from versatune.data.collect import SCHEMA, Collected, Collector, Tally
from versatune.data.config import CleanParams, Domains
from versatune.data.hub import check_hub
from versatune.data.leaks import LeakIndex, read_questions
from versatune.data.selection import HELD_OUT, RowStatus, RowStatuses, decide, find_duplicates
from versatune.data.sources import DomainFiles, locate
from versatune.errors import VersatuneError
from versatune.work import Piece

logger = logging.getLogger(__name__)

SHARD_ROWS = 10_000
"""Rows in one file of the result, which is also the unit in which tokenising goes on."""
REPORT = "report.json"
VERSION = 9
"""Raised when the same files would give other rows or another report: kept ones are not reused."""
SPLITS = ("train", "steering", "report")
"""The names of the splits, those of :data:`versatune.data.store.Split`."""


def clean(domains: Domains, params: CleanParams) -> Piece:
    """The cleaned rows of all domains.

    The folder holds ``train``, ``steering`` and ``report`` (data sets with the columns ``domain``,
    ``messages``, ``prompt``, ``row``, in the order of the domains) and ``report.json``. Metadata:
    ``domains``; ``rows`` per split and domain; ``only_own``, the domains that the base model's own
    texts are all the rows of, so that none are here; ``data_fingerprint``, which stands for the
    kept rows themselves, wherever they came from.
    """
    found = locate(domains.active)
    inputs = {
        "version": VERSION,
        "parameters": params.model_dump(mode="json"),
        "domains": [[name, files.inputs()] for name, files in found.items()],
    }
    return Piece(inputs, partial(_clean, found, params))


def _clean(found: Mapping[str, DomainFiles], params: CleanParams, folder: Path) -> dict[str, Any]:
    try:
        return _clean_into(folder, found, params)
    except OSError as error:
        raise VersatuneError(
            f"cleaning into {folder} failed: {error}. Fix that and run again."
        ) from error


def _clean_into(
    folder: Path, found: Mapping[str, DomainFiles], params: CleanParams
) -> dict[str, Any]:
    for origin in (origin for files in found.values() for origin in files.origins):
        if origin.source.hub is not None:
            check_hub(origin.source)
    _empty(folder)
    parts = folder / "parts"
    parts.mkdir()
    items = [
        q for files in found.values() for path in files.evaluation for q in read_questions(path)
    ]
    collector = Collector(parts, params, LeakIndex(items, params.leak_words))
    for name, files in found.items():
        collector.add(name, files.origins)
    collected = collector.finish()
    duplicates = find_duplicates(collected.keys, params)
    statuses = decide(collected.keys, {n: f.config for n, f in found.items()}, params, duplicates)
    foreign = Foreign.of(duplicates, collected.keys.domain, list(found), params.max_examples)
    _write(folder, collected.parts, statuses, foreign)
    report = {}
    for d, name in enumerate(found):
        report[name] = account(collected.tallies[d], statuses[collected.keys.domain == d])
        report[name]["duplicates_of"] = foreign.of_domain(name)
        logger.debug("%s", summary(name, report[name]))  # the account comes with the last stage
        if ignored := report[name]["ignored_columns"]:
            shown = ", ".join(_ignored(column, rows) for column, rows in ignored.items())
            logger.warning("%s: ignored columns: %s.", name, shown)
        if numbers := report[name]["numbers_as_text"]:
            shown = ", ".join(f"{column} ({rows} rows)" for column, rows in numbers.items())
            logger.warning("%s: numbers read as texts: %s.", name, shown)
    write_json(folder / REPORT, report)
    shutil.rmtree(parts)
    rows = {s: {n: r[f"{s}_rows"] for n, r in report.items()} for s in SPLITS}
    return {
        "domains": list(found),
        "rows": rows,
        "only_own": [name for name, files in found.items() if files.config.only_own],
        "max_reject_rate": params.max_reject_rate,
        "data_fingerprint": _content(list(found), collected, statuses),
    }


def account(tally: Tally, statuses: RowStatuses) -> dict[str, Any]:
    """Where the rows read for one domain went; the counts add up to ``read``."""
    count = {status: int((statuses == status).sum()) for status in RowStatus}
    return {
        "read": tally.read,
        "rejected": tally.rejects.as_dict(),
        "duplicates": {"exact": count[RowStatus.EXACT], "near": count[RowStatus.NEAR]},
        "leaked": count[RowStatus.LEAKED],
        "ignored_columns": dict(sorted(tally.ignored.items())),
        "numbers_as_text": dict(sorted(tally.numbers.items())),
        "left_out_by_weight": count[RowStatus.WEIGHT],
        "left_out_by_limit": count[RowStatus.LIMIT],
        "train_rows": count[RowStatus.TRAIN],
        "validation_rows": sum(count[status] for status in HELD_OUT),
        "steering_rows": count[RowStatus.STEERING],
        "report_rows": count[RowStatus.REPORT],
    }


def summary(name: str, entry: Mapping[str, Any]) -> str:
    """One line for the log about a domain's account, of cleaning only or of both stages."""
    counts = {
        "rejected": Rejects.of(entry["rejected"]).summary(),
        "duplicates": str(entry["duplicates"]["exact"] or ""),
        "near duplicates": str(entry["duplicates"]["near"] or ""),
        "leaked": str(entry["leaked"] or ""),
        "left out": str(entry["left_out_by_weight"] + entry["left_out_by_limit"] or ""),
    }
    lost = [f"{count} {what}" for what, count in counts.items() if count]
    others = ", ".join(f"{n['count']} of {other}" for other, n in entry["duplicates_of"].items())
    return (
        f"{name}: {entry['read']} rows read"
        + "".join(f", {part}" for part in lost)
        + (f" (duplicates of other domains: {others})" if others else "")
        + f"; {entry['train_rows']} train, {entry['steering_rows']} steering, "
        f"{entry['report_rows']} report"
    )


def _ignored(column: str, rows: int) -> str:
    field = field_of(column)
    hint = f"; `columns: {{{field}: {column}}}` would use it" if field else ""
    return f"{column} ({rows} rows{hint})"


def _empty(folder: Path) -> None:
    """Start over after an interruption: reading again is simpler than resuming."""
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != INPUTS:
            entry.unlink()


def _write(folder: Path, parts: list[Path], statuses: RowStatuses, foreign: Foreign) -> None:
    """Copy the rows that stay from the parts to the splits, in their order."""
    writers = {
        status: ShardWriter(folder / split, SCHEMA, SHARD_ROWS)
        for status, split in zip(
            (RowStatus.TRAIN, RowStatus.STEERING, RowStatus.REPORT), SPLITS, strict=True
        )
    }
    at = 0
    for part in parts:
        for batch in batches(part):
            status = statuses[at : at + batch.num_rows]
            for wanted, writer in writers.items():
                writer.add(batch.filter(pa.array(status == wanted)))
            foreign.see(at, batch.column("row"))
            at += batch.num_rows
    for writer in writers.values():
        writer.close()


def _content(names: list[str], collected: Collected, statuses: RowStatuses) -> str:
    kept = statuses <= RowStatus.REPORT
    digest = hashlib.sha256("\n".join(names).encode())
    for column in (collected.keys.domain, collected.contents, statuses):
        digest.update(column[kept].tobytes())
    return digest.hexdigest()[:16]
