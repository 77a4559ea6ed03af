"""The tables of a finished comparison as Markdown, as docs/results.md has them.

    python -m tests.benchmarks.comparison_table REPORTING_FOLDER

REPORTING_FOLDER holds ``comparison.parquet`` and ``comparison_summary.parquet``
(``data/results/fostering`` after ``kedro run --env results/fostering --pipeline compare``). Values
are means over seeds; intervals are 95 % t-intervals over seeds of differences paired by seed, those
of ``less degradation`` are Fieller's for a ratio. The last table has the geometric mean of the
domains' losses, in which equal parts of any domain's loss count alike, as they do in the learnable
potential.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from versatune.evaluation.comparison import ACCURACY, ALL, difference_row, scores
from versatune.evaluation.results import LOSS

NAMES = {LOSS: "held-out loss", ACCURACY: "accuracy"}


def table(summary: pd.DataFrame, metric: str) -> list[str]:
    """Lines of one metric's table: a row a strategy, the baseline among them."""
    found = summary[summary["metric"] == metric]
    domains = [d for d in found[found["measure"] == "value"]["domain"].unique() if d != ALL]
    expands = bool((found["measure"] == "target_gain").any())
    measures = ["target_gain", "others_change", "less_degradation"] if expands else []
    head = ["strategy", *domains, "mean", "better than the baseline (95 %)", "verdict"]
    head += [name.replace("_", " ") for name in measures]
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for strategy in found["strategy"].unique():
        mine = found[found["strategy"] == strategy]
        values = mine[mine["measure"] == "value"].set_index("domain")["value"]
        cells = [strategy, *(f"{values[d]:.3f}" for d in [*domains, ALL])]
        cells += _gain(mine)
        cells += [_measure(mine, name) for name in measures]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _gain(mine: pd.DataFrame) -> list[str]:
    rows = mine[mine["measure"] == "relative_gain"].to_dict("records")
    if not rows:
        return ["baseline", ""]
    row = rows[0]
    return [f"{row['value']:+.2%} ({_spread(row)})", row["verdict"] or "no verdict"]


def _spread(row: Mapping[str, Any]) -> str:
    known = row["verdict"] is not None
    return f"{row['low']:+.2%} to {row['high']:+.2%}" if known else "no interval"


def _measure(mine: pd.DataFrame, name: str) -> str:
    rows = mine[mine["measure"] == name].to_dict("records")
    if not rows:
        return ""
    row = rows[0]
    if name == "less_degradation":
        return f"{row['value']:.1%} ({row['value_low']:.1%} to {row['value_high']:.1%})"
    return f"{row['value']:+.3f} ({row['value_low']:+.3f} to {row['value_high']:+.3f})"


def geometric(comparison: pd.DataFrame, baseline: str) -> list[str]:
    """Lines of the table of geometric means over the domains, a row a strategy."""
    means = {
        key: float(np.exp(np.mean(np.log(list(by_domain.values())))))
        for key, by_domain in scores(comparison, LOSS).items()
    }
    seeds = [seed for name, seed in means if name == baseline]
    lines = ["| strategy | geometric mean | better than the baseline (95 %) | verdict |"]
    lines.append("|" + " --- |" * 4)
    for strategy in dict.fromkeys(name for name, _ in means):
        mine = np.array([means[strategy, seed] for seed in seeds])
        theirs = np.array([means[baseline, seed] for seed in seeds])
        cells = [strategy, f"{mine.mean():.3f}", "baseline", ""]
        if strategy != baseline:
            row = difference_row((theirs - mine) / theirs, lower_is_better=False)
            cells[2:] = [
                f"{row['difference']:+.2%} ({_spread(row)})",
                row["verdict"] or "no verdict",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    summary = pd.read_parquet(folder / "comparison_summary.parquet")
    for metric in summary["metric"].unique():
        rows = summary[summary["metric"] == metric]
        seeds = int(rows["n_seeds"].max())
        print(f"\n{NAMES[metric]}, {seeds} seeds, baseline {rows['baseline'].iloc[0]}:\n")
        print("\n".join(table(summary, metric)))
    comparison = pd.read_parquet(folder / "comparison.parquet")
    print("\ngeometric mean of held-out losses:\n")
    print("\n".join(geometric(comparison, summary["baseline"].iloc[0])))


if __name__ == "__main__":
    main()
