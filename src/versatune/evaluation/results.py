"""Results of a measurement: rows of the ``evaluation`` table, and the score of every item."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from versatune.intervals import Z95, mean_stderr, share_stderr, wilson

ROW_COLUMNS = ("domain", "task", "metric", "value", "stderr", "low", "high", "n", "task_version")
"""The columns of the ``evaluation`` table that one measurement fills."""

COLUMNS = ("model", *ROW_COLUMNS, "checkpoint", "versions")
"""The ``evaluation`` table. ``model``: the model's part (base, tuned, a strategy);
``checkpoint``: the fingerprint of its files; ``n``: items, or rows of a held-out loss."""

ITEM_COLUMNS = ("model", "domain", "task", "metric", "item", "score", "weight", "answer")
"""The ``evaluation_items`` table. ``score``: 0 or 1, or any number of a harness metric; for
held-out loss the nats of the row, with its tokens as ``weight`` (1 everywhere else). ``answer``:
the choice that the metric takes for the model's, or the text it wrote; None where neither is known.
"""

HELD_OUT = "held_out"
"""The task name of held-out losses."""

LOSS = "nats_per_token"

GROUP = " (group)"
"""Marks a group of the harness in the tables: its numbers repeat those of its members, so they are
shown and not counted."""

APART = " (apart)"
"""What follows the name of a file in the tables whose results are shown and not counted."""

ANSWER_NATS = "answer_nats"
"""Of a multiple-choice file apart: minus the log-probability of the right answer's tokens."""

ACCURACIES = ("acc", "exact_match", "pass@1", "acc_norm")
"""Metrics where more is better; the first of them that a task reports counts as its accuracy."""

LIBRARIES = ("torch", "transformers", "lm-eval")
"""Libraries whose versions are part of the key by which results are kept."""


@dataclass(frozen=True)
class Measured:
    """One part of an evaluation, without the model's name."""

    rows: pd.DataFrame
    items: pd.DataFrame
    answers: pd.DataFrame = field(default_factory=pd.DataFrame)
    """What the model answered to held-out prompts; see :mod:`versatune.evaluation.examples`."""


def library_versions() -> dict[str, str]:
    """The installed versions of :data:`LIBRARIES`, by name."""
    return {name: version(name) for name in LIBRARIES}


def described_versions() -> str:
    """Versions of versatune and of :data:`LIBRARIES`, in one line."""
    versions = {"versatune": version("versatune"), **library_versions()}
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def plain_metric(metric: str) -> str:
    """``exact_match (flexible-extract)`` and the like without what the harness adds."""
    return metric.split(" (", maxsplit=1)[0]


def task_accuracies(rows: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Of ``rows`` (columns ``domain``, ``task``, ``metric`` and ``by``) each task's accuracy.

    That is the first of :data:`ACCURACIES` it has, within each combination of ``by``; rows keep
    their order. Groups of the harness are no tasks, and files apart are not counted.
    """
    rows = rows[~rows["task"].str.endswith((GROUP, APART))]
    rank = rows["metric"].map(plain_metric).map({name: i for i, name in enumerate(ACCURACIES)})
    found = rows.assign(rank=rank).dropna(subset="rank")
    keys = [*by, "domain", "task"]
    first = found[found["rank"] == found.groupby(keys)["rank"].transform("min")]
    return first.drop_duplicates(keys).drop(columns="rank")


def score_row(scores: Sequence[float]) -> dict[str, Any]:
    """value, stderr, low, high, n of the mean of item scores.

    Scores of 0 and 1 get Wilson's interval, others mean ± 1.96 stderr.
    """
    values = np.asarray(scores, dtype=np.float64)
    if np.isin(values, (0.0, 1.0)).all():
        share = float(values.mean())
        low, high = wilson(share, len(values))
        stderr = share_stderr(share, len(values))
    else:
        share, stderr = mean_stderr(values)
        low, high = share - Z95 * stderr, share + Z95 * stderr
    return {"value": share, "stderr": stderr, "low": low, "high": high, "n": len(values)}


def item_scores(samples: list[dict[str, Any]], metric: str, chain: str) -> dict[int, float]:
    """Scores of single items by number; empty for metrics that only exist for the whole task."""
    mine = [s for s in samples if s["filter"] == chain and metric in s["metrics"]]
    if not all(isinstance(s[metric], int | float) for s in mine):
        return {}
    return {int(s["doc_id"]): float(s[metric]) for s in mine}


def task_version(task: str, found: dict[str, Any]) -> str:
    """The version a task or group declares; for a group without one, those of its members."""
    own = found["versions"].get(task)
    if own in (None, "N/A") and found["group_subtasks"].get(task):
        members = {task_version(member, found) for member in found["group_subtasks"][task]}
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


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """A data frame with these columns, in this order, also when there are no rows."""
    return pd.DataFrame(list(rows), columns=list(columns))


def metric_values(rows: pd.DataFrame) -> dict[str, float]:
    """Rows as MLflow metrics: ``tuned/nats_per_token/law``, ``tuned/acc/law-bar_exam``.

    The domain comes last, so that MLflow puts the domains of one metric side by side. A task
    that is called like its domain is not named again. Tasks whose names differ only in characters
    that MLflow refuses stay apart.
    """
    found: dict[str, float] = {}
    for row in rows.to_dict("records"):
        own = row["task"] in (HELD_OUT, row["domain"])
        task = "" if own else f"-{row['task']}"
        name = f"{row['model']}/{row['metric']}/{row['domain']}{task}"
        name = re.sub(r"[^\w\-./ ]", "_", name)
        while name in found:
            name += "_"
        found[name] = float(row["value"])
    return found
