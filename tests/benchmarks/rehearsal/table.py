"""The table of what was measured, as a CSV and as the page has it."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.rehearsal import PARTS, REAL, SHARES
from tests.benchmarks.rehearsal.world import World
from tests.benchmarks.settings.pages import markdown
from versatune.intervals import mean_stderr, t_interval

COLUMNS = (
    *("setting", "target", "arm", "own_share", "part", "part_of_target_gain"),
    *("part_of_target_gain_low", "part_of_target_gain_high", "forgetting_avoided"),
    *("forgetting_avoided_low", "forgetting_avoided_high", "least_other_change", "drift"),
    *("own_loss_change", "n_seeds"),
)

GAINS = (0.7, 0.8, 0.9)
"""Parts of the target's gain at which arms are compared."""


def table(world: World, runs: dict[tuple[str, int], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row an arm and part, over the seeds that were run with target-only training too."""
    others = [name for name in world.names if name != world.target]
    whole = {s: of[-1]["changes"] for (arm, s), of in runs.items() if arm == "target_only"}
    gain = -np.mean([of[world.target] for of in whole.values()])
    forgotten = np.mean([sum(of[n] for n in others) for of in whole.values()])
    rows = []
    for arm in (*SHARES, REAL):
        seeds = sorted(s for a, s in runs if a == arm and s in whole)
        for number, part in enumerate(PARTS if seeds else ()):
            found = [runs[arm, seed][number] for seed in seeds]
            changes = [of["changes"] for of in found]
            sums = np.array([sum(of[n] for n in others) for of in changes])
            rows.append(
                {
                    "setting": world.start.name,
                    "target": world.target,
                    "arm": arm,
                    "own_share": SHARES.get(arm, 0.0),
                    "part": part,
                    **_spread("part_of_target_gain", [-of[world.target] / gain for of in changes]),
                    **_spread("forgetting_avoided", (1 - sums / forgotten).tolist()),
                    # A rise in loss is a loss of ability: the least change is the largest rise.
                    "least_other_change": round(
                        float(np.mean([-max(of[n] for n in others) for of in changes])), 4
                    ),
                    "drift": round(float(np.mean([of["drift"] for of in found])), 4),
                    "own_loss_change": round(float(np.mean([of["own"] for of in changes])), 4),
                    "n_seeds": len(seeds),
                }
            )
    return rows


def parts_table(rows: Sequence[Mapping[str, Any]], parts: Sequence[float] = PARTS) -> str:
    """The table of one setting on the page, from rows as the CSV has them."""
    lines = [
        (
            f"`{row['arm']}`",
            f"{float(row['part']):g}",
            _shown(row, "part_of_target_gain"),
            _shown(row, "forgetting_avoided"),
            f"{float(row['least_other_change']):+.3f}",
            f"{float(row['drift']):.3f}",
            f"{float(row['own_loss_change']):+.3f}",
            row["n_seeds"],
        )
        for row in rows
        if float(row["part"]) in parts
    ]
    return markdown(
        (
            *("arm", "part of the way", "part of the target's gain", "forgetting avoided"),
            *("least other change", "drift", "own texts' loss", "seeds"),
        ),
        lines,
    )


def same_gain(rows: Sequence[Mapping[str, Any]], gains: Sequence[float] = GAINS) -> str:
    """What each arm avoids of the forgetting where it has the same part of the target's gain.

    Between two rows of the CSV by a straight line; empty where an arm does not get so far.
    """
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in rows:
        at = float(row["part_of_target_gain"]), float(row["forgetting_avoided"])
        found.setdefault((row["setting"], row["arm"]), []).append(at)
    lines = []
    for (setting, arm), points in found.items():
        gained, avoided = zip(*sorted(points), strict=True)
        at = [f"{np.interp(g, gained, avoided):.2f}" if g <= gained[-1] else "" for g in gains]
        lines.append((setting, f"`{arm}`", *at))
    return markdown(("setting", "arm", *(f"at {g:g} of the gain" for g in gains)), lines)


def _shown(row: Mapping[str, Any], name: str) -> str:
    low, high = float(row[f"{name}_low"]), float(row[f"{name}_high"])
    interval = "" if np.isnan(low) else f" ({low:.2f} to {high:.2f})"
    return f"{float(row[name]):.2f}{interval}"


def _spread(name: str, values: Sequence[float]) -> dict[str, float]:
    mean, stderr = mean_stderr(np.asarray(values, dtype=np.float64))
    low, high = t_interval(mean, stderr, len(values))
    return {name: round(mean, 3), f"{name}_low": round(low, 3), f"{name}_high": round(high, 3)}


def write_table(file: Path, rows: list[dict[str, Any]]) -> None:
    """Write the rows of one setting and target; those of others in the file stay."""
    if not rows:
        return
    of = [(row["setting"], row["target"]) for row in rows[:1]]
    others = []
    if file.is_file():
        text = file.read_text(encoding="utf-8")
        read = list(csv.DictReader(text.splitlines()))
        others = [row for row in read if (row["setting"], row["target"]) not in of]
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*others, *rows])
