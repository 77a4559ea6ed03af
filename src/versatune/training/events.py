"""The report of a round: its log line, and its metrics as an event."""

import json
from pathlib import Path
from typing import Any

from versatune.artifacts import write_atomic
from versatune.training.job import Event
from versatune.training.progress import OF_STEPS, speed


def rates(row: dict[str, Any]) -> str:
    """Speed and memory of a round, as its history has them; nothing before the first step."""
    if not row.get("tokens_per_second"):
        return ""
    said = [f"{speed(row['tokens_per_second'])} tokens/s"]
    if row.get("mfu") is not None:
        said.append(f"MFU {row['mfu']:.2f}")
    if row.get("peak_memory_bytes") is not None:
        said.append(f"{row['peak_memory_bytes'] / 10**9:.1f} GB of memory")
    return ", ".join(said)


_METRICS = {
    "weight": "share",
    "validation_loss": "loss",
    "train_loss": "train_loss",
    "learnable_potential": "learnable_potential",
    "forgetting_degree": "forgetting_degree",
    "realised_share_tokens": "realised_share_tokens",
    "epochs_seen": "epochs_seen",
}
"""Columns of the history, and what a chart of them is titled."""


def as_event(rows: list[dict[str, Any]]) -> Event:
    """The rows of a round as one event: a metric a column and domain, and the round's own."""
    metrics = {
        f"{title}/{row['domain']}": row[column]
        for column, title in _METRICS.items()
        for row in rows
        if row[column] is not None
    }
    whole = ("seconds", "measurement_seconds", "tokens_per_second", *OF_STEPS)
    # A history from before some columns were there goes on without them.
    metrics |= {key: rows[0][key] for key in whole if rows[0].get(key) is not None}
    metrics["loss/mean"] = sum(r["validation_loss"] for r in rows) / len(rows)
    return {"round": rows[0]["round"], "step": rows[0]["step"], "metrics": metrics}


def rewrite_events(path: Path, history: list[dict[str, Any]]) -> list[Event]:
    """Make metrics.jsonl agree with the history that a run continues from; returns its events."""
    rounds = sorted({row["round"] for row in history})
    events = [as_event([row for row in history if row["round"] == r]) for r in rounds]
    write_atomic(path, "".join(json.dumps(event) + "\n" for event in events))
    return events
