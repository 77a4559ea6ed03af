"""Rows of the ``evaluation`` table from the harness's results of its own tasks."""

import math
from collections.abc import Mapping
from typing import Any

from versatune.evaluation.results import score_row
from versatune.intervals import Z95


def item_scores(samples: list[dict[str, Any]], metric: str, chain: str) -> dict[int, float]:
    """Scores of single items by number; empty for metrics that only exist for the whole task."""
    mine = [s for s in samples if s["filter"] == chain and metric in s["metrics"]]
    if not all(isinstance(s[metric], int | float) for s in mine):
        return {}
    return {int(s["doc_id"]): float(s[metric]) for s in mine}


def version(task: str, found: dict[str, Any]) -> str:
    """The version a task or group declares; for a group without one, those of its members."""
    own = found["versions"].get(task)
    if own in (None, "N/A") and found["group_subtasks"].get(task):
        members = {version(member, found) for member in found["group_subtasks"][task]}
        return f"members: {', '.join(sorted(members))}"
    return str(own)


def named_row(value: float, stderr: Any, values: Mapping[int, float], n: int) -> dict[str, Any]:
    """The harness's own number with its error; Wilson's interval where items are 0 or 1."""
    error = float(stderr) if isinstance(stderr, int | float) else math.nan
    if values:
        row = score_row(list(values.values()))
        if math.isclose(row["value"], value, abs_tol=1e-9):
            return row
    low, high = value - Z95 * error, value + Z95 * error
    return {"value": value, "stderr": error, "low": low, "high": high, "n": n}
