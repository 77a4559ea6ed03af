"""The tables of docs/settings.md and docs/results.md from the CSVs: what stands between markers.

``<!-- table: NAME -->`` begins what :data:`TABLES` makes of NAME, ``<!-- end -->`` ends it. What is
around them is written by hand.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tests.benchmarks.settings import RESULTS
from tests.benchmarks.settings.schedule import BUDGETED, OF_LAW

PAGES = (Path("docs/settings.md"), Path("docs/results.md"))

_TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def write_pages(pages: Sequence[Path] = PAGES, results: Path = RESULTS) -> None:
    """Bring the pages' tables up to date."""
    for page in pages:
        text = page.read_text(encoding="utf-8")
        page.write_text(filled(text, results), encoding="utf-8")


def filled(text: str, results: Path = RESULTS) -> str:
    """``text`` with every table made anew. Raises KeyError on a table that nobody makes."""

    def made(found: re.Match[str]) -> str:
        return f"{found[1]}\n{TABLES[found[2]](results)}\n\n{found[3]}"

    return _TABLE.sub(made, text)


def settings_table(results: Path) -> str:
    """settings.csv, each strategy's newest version, but for what :func:`budget_table` has."""
    found = _newest(results / "settings.csv", ["setting", "strategy"])
    newer = pd.read_csv(results / "default_budget" / "settings.csv")["setting"]
    found = found[~(found["strategy"].isin(BUDGETED) & found["setting"].isin(newer))]
    lines = [
        (
            r.setting,
            _name(r),
            _number(r.oracle_gain, "+.2f"),
            _with_interval(r, "part_of_oracle", ".2f"),
            _with_interval(r, "gain_over_uniform", "+.2f"),
            _with_interval(r, "gain_over_proportional", "+.2f"),
            r.n_seeds,
            f"{r.cost_steps:g}",
        )
        for r in found.itertuples()
    ]
    return markdown(
        (
            *("setting", "strategy", "oracle over uniform, %", "part of the oracle's gain"),
            *("over uniform, %", "over stratified, %", "seeds", "cost in steps"),
        ),
        lines,
    )


def budget_table(results: Path) -> str:
    """default_budget/settings.csv: the law within the default ``references.budget``, and without
    one in the same worlds."""
    found = _newest(results / "default_budget" / "settings.csv", ["setting", "strategy"])
    lines = [
        (
            r.setting,
            _name(r),
            _number(r.oracle_gain, "+.2f"),
            _with_interval(r, "part_of_oracle", ".2f"),
            _with_interval(r, "gain_over_uniform", "+.2f"),
            _with_interval(r, "gain_over_proportional", "+.2f"),
            r.n_seeds,
            r.steps,
            f"{r.cost_steps:g}",
        )
        for r in found[found["strategy"].isin(OF_LAW)].itertuples()
    ]
    return markdown(
        (
            *("setting", "strategy", "oracle over uniform, %", "part of the oracle's gain"),
            *("over uniform, %", "over stratified, %", "seeds", "steps", "cost in steps"),
        ),
        lines,
    )


def budget_expansion_table(results: Path) -> str:
    """default_budget/expansion.csv: ``expand`` within the default ``references.budget``."""
    return expansion_table(results / "default_budget", BUDGETED)


def expansion_table(results: Path, strategies: Sequence[str] = ()) -> str:
    """expansion.csv, each strategy's newest version; ``strategies``: these alone."""
    found = _newest(results / "expansion.csv", ["setting", "target", "strategy"])
    if strategies:
        found = found[found["strategy"].isin(strategies)]
    lines = [
        (
            r.setting,
            r.target,
            _name(r),
            _with_interval(r, "part_of_target_gain", ".2f"),
            _with_interval(r, "least_other_change", "+.2f"),
            _number(r.part_within_tolerance, ".2f"),
            r.n_seeds,
        )
        for r in found.itertuples()
    ]
    return markdown(
        (
            *("setting", "target", "strategy", "part of the target-only gain"),
            *("least change of another domain, %", "seeds within tolerance", "seeds"),
        ),
        lines,
    )


def _newest(path: Path, keys: list[str]) -> pd.DataFrame:
    """A table's rows, of several versions of a strategy the last of those with the most seeds."""
    found = pd.read_csv(path, dtype={"version": str}).fillna({"version": ""})
    kept = found.sort_values("n_seeds", kind="stable").drop_duplicates(keys, keep="last")
    return found.loc[sorted(kept.index)]


def forecast_table(results: Path) -> str:
    """forecast.csv in sums: how often the 90 % interval holds the outcome, and how many times as
    wide it would have to be, on both sides of the forecast, to hold 90 %."""
    found = pd.read_csv(results / "forecast.csv")
    held = (found["low"] <= found["outcome"]) & (found["outcome"] <= found["high"])
    error = 100 * (found["predicted"] - found["outcome"]) / found["outcome"]
    away = found["outcome"] - found["predicted"]
    side = (found["high"] - found["predicted"]).where(away > 0, found["predicted"] - found["low"])
    found = found.assign(held=held, error=error, size=error.abs(), wider=away.abs() / side)
    groups: list[tuple[Any, pd.DataFrame]] = [*found.groupby("setting", sort=False), ("all", found)]
    lines = [
        (
            name,
            len(group),
            f"{group['held'].mean():.2f}",
            f"{group['wider'].quantile(0.9):.2f}",
            f"{group['error'].mean():+.1f}",
            f"{group['size'].mean():.1f}",
        )
        for name, group in groups
    ]
    return markdown(
        (
            *("setting", "domain x run pairs", "within the interval"),
            *("times as wide for 0.90", "mean error, %", "mean size, %"),
        ),
        lines,
    )


def headroom_table(results: Path) -> str:
    """headroom.csv."""
    found = pd.read_csv(results / "headroom.csv")
    lines = [
        (
            r.setting,
            _with_interval(r, "headroom", "+.2f"),
            _with_interval(r, "oracle_gain", "+.2f"),
            _number(r.spread_of_marginals, ".2f"),
        )
        for r in found.itertuples()
    ]
    return markdown(
        ("setting", "forecast headroom, %", "oracle over uniform, %", "spread of marginals"), lines
    )


def simulated_table(results: Path) -> str:
    """simulated.csv, the worlds where all domains are raised."""
    found = pd.read_csv(results / "simulated.csv")
    lines = [
        (
            f"{r.world} ({r.oracle_gain:.2f} %)",
            r.strategy,
            f"{r.part_of_oracle:.2f}",
            _with_interval(r, "gain_over_uniform", "+.2f"),
            _with_interval(r, "gain_over_proportional", "+.2f"),
        )
        for r in found[found["part_of_oracle"].notna()].itertuples()
    ]
    return markdown(
        (
            *("world (oracle over uniform)", "strategy", "part of the oracle's gain"),
            *("over uniform, % (95 %)", "over proportional, % (95 %)"),
        ),
        lines,
    )


def simulated_expansion_table(results: Path) -> str:
    """simulated.csv, the worlds where one domain is raised."""
    found = pd.read_csv(results / "simulated.csv")
    lines = [
        (
            r.world,
            f"{100 * r.tolerance:g} %",
            r.strategy,
            _with_interval(r, "part_of_target_gain", "+.2f"),
            _with_interval(r, "least_other_change", "+.2f"),
            f"{r.part_within_tolerance:.2f}",
        )
        for r in found[found["part_of_target_gain"].notna()].itertuples()
    ]
    return markdown(
        (
            *("world", "tolerance", "strategy", "part of target-only gain (95 %)"),
            *("least change of the others within tolerance, % (95 %)", "seeds within"),
        ),
        lines,
    )


def simulated_forecast_table(results: Path) -> str:
    """simulated_forecast.csv."""
    found = pd.read_csv(results / "simulated_forecast.csv")
    lines = [
        (
            r.world,
            f"{r.covered:.2f}",
            f"{r.headroom_forecast:.2f}",
            f"{r.headroom_true:.2f}",
            f"{r.headroom_covered:.2f}",
            r.n_seeds,
        )
        for r in found.itertuples()
    ]
    return markdown(
        (
            *("world", "outcomes within the interval", "headroom forecast, %"),
            *("true headroom, %", "headrooms within the interval", "seeds"),
        ),
        lines,
    )


TABLES: dict[str, Callable[[Path], str]] = {
    "settings": settings_table,
    "default_budget": budget_table,
    "default_budget_expansion": budget_expansion_table,
    "expansion": expansion_table,
    "forecast": forecast_table,
    "headroom": headroom_table,
    "simulated": simulated_table,
    "simulated_expansion": simulated_expansion_table,
    "simulated_forecast": simulated_forecast_table,
}


def _name(row: Any) -> str:
    return f"{row.strategy} ({row.version})" if row.version else str(row.strategy)


def _number(value: float, spec: str) -> str:
    return "" if pd.isna(value) else format(value, spec)


def _with_interval(row: Any, name: str, spec: str) -> str:
    value, low, high = (getattr(row, name + end) for end in ("", "_low", "_high"))
    if pd.isna(value):
        return ""
    if pd.isna(low):
        return format(value, spec)
    return f"{value:{spec}} ({low:{spec}} to {high:{spec}})"


def markdown(head: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """A table."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)
