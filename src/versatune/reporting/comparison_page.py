"""The page of a comparison: verdicts, domains, and the strategies' shares."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from versatune.evaluation import comparison as against
from versatune.evaluation.objective import DeclaredObjective
from versatune.evaluation.results import LOSS
from versatune.reporting import formats, objective, page

NAMES = {LOSS: "Held-out loss", against.ACCURACY: "Accuracy"}
UNITS = {LOSS: "nats per token", against.ACCURACY: "percentage points"}

Row = Mapping[str, Any]
"""A row of ``comparison_summary``, missing values None."""


@dataclass(frozen=True)
class Compared:
    """The inputs of the page."""

    domains: Sequence[str]
    """Their order decides their colours."""
    summary: pd.DataFrame
    """The ``comparison_summary`` table."""
    baseline: str
    target: str | None
    n_seeds: int
    budget: str
    """What every run may spend, in words."""
    setup: page.Setup
    figures: Mapping[str, go.Figure] = field(default_factory=dict)
    """By the names used in the template."""
    declared: DeclaredObjective = field(default_factory=DeclaredObjective)
    """The objective of training, which the verdict is about."""
    other_bases: Sequence[str] = ()
    """Base models whose comparisons are read beside."""

    @property
    def few(self) -> bool:
        """Whether there are too few seeds for intervals and verdicts."""
        return not self.summary["n_seeds"].max() >= against.MIN_SEEDS

    def rows(self, metric: str, measure: str, domain: str | None = None) -> dict[str, Row]:
        """Rows of the summary by strategy."""
        s = self.summary
        found = s[(s["metric"] == metric) & (s["measure"] == measure)]
        if domain is not None:
            found = found[found["domain"] == domain]
        return {str(row["strategy"]): row for row in page.records(found)}


@dataclass(frozen=True)
class Cell:
    """A number as the page shows it."""

    value: float | None
    """What its column is sorted by."""
    text: str
    interval: str = ""
    verdict: str = ""


NOTHING = Cell(None, "–")

WIDE = 5
"""With more strategies than this a table of domains says its verdicts only by colour."""


@dataclass(frozen=True)
class Table:
    """A table of the page: a row a strategy or a domain."""

    title: str
    columns: Sequence[str]
    rows: Mapping[str, Sequence[Cell]]


def render(compared: Compared) -> str:
    """The page as text."""
    metrics = [m for m in NAMES if compared.rows(m, "value")]
    return page.write(
        "comparison.html",
        kind="comparison",
        domains=compared.domains,
        said=said(compared),
        setup=compared.setup,
        figures=compared.figures,
        c=compared,
        least=against.MIN_SEEDS,
        overall=overall(compared, metrics),
        each=[each(compared, m) for m in metrics if compared.target is None],
        compact=len(compared.rows(LOSS, "value", against.ALL)) > WIDE,
        expansion=[expansion(compared, m) for m in metrics if compared.rows(m, "target_gain")],
        by_domain=[by_domain(compared, m) for m in metrics],
    )


def said(compared: Compared) -> page.Summary:
    """The verdict on held-out loss in a sentence; a line for each strategy that differs, and one on
    accuracy."""
    gains = compared.rows(LOSS, "relative_gain")
    baseline, target = compared.baseline, compared.target
    if target is not None:
        on_target, on_others = (compared.rows(LOSS, m) for m in ("target_gain", "others_change"))
        judged = [s for s in gains if s in on_target and on_target[s]["verdict"]]
        lines = [_expanded(on_target[s], on_others[s], target) for s in judged]
        verdicts = [r[s]["verdict"] for r in (on_target, on_others) for s in gains if s in r]
    else:
        right = compared.rows(against.ACCURACY, "relative_gain")
        lines = _gained(gains.values(), compared.declared)
        if right:
            lines.append(_headline("By accuracy", right.values(), baseline))
        verdicts = [row["verdict"] for row in (*gains.values(), *right.values())]
    if not gains:
        headline = f"There is nothing to compare with {baseline}."
    elif compared.few or not any(verdicts):
        headline, lines = f"No verdict: it takes {against.MIN_SEEDS} seeds to distinguish them.", []
    elif target is not None and lines:
        first = next((i for i, s in enumerate(judged) if s.startswith("expand")), 0)
        headline = lines.pop(first)
    else:
        headline = _headline(objective.lead(compared.declared), gains.values(), baseline)
    over = {s: row["value"] for s, row in compared.rows(LOSS, against.BEYOND).items()}
    lines += objective.counts(over, compared.declared, len(compared.domains), compared.n_seeds)
    better, worse = "better" in verdicts, "worse" in verdicts
    mood = "mixed" if better and worse else "good" if better else "bad" if worse else "unknown"
    bases = [(compared.setup.base_model or {}).get("name", "not named"), *compared.other_bases]
    seeds = "1 seed" if compared.n_seeds == 1 else f"{compared.n_seeds} seeds"
    what = f"Base model{'s' if compared.other_bases else ''}: {formats.comma(bases)}"
    run = f"{what}; {seeds} of each strategy; {compared.budget}."
    return page.Summary(headline, lines, "unknown" if compared.few else mood, run)


def _headline(lead: str, gains: Iterable[Row], baseline: str) -> str:
    """Strategies better and worse than the baseline, over all domains."""
    named = _by_verdict(gains)
    parts = [
        f"{formats.comma(named[verdict])} {'is' if len(named[verdict]) == 1 else 'are'} {verdict}"
        for verdict in ("better", "worse")
        if verdict in named
    ]
    if not parts:
        return f"{lead} no strategy can be distinguished from {baseline}."
    return f"{lead} {formats.comma(parts)} than {baseline}."


def _by_verdict(gains: Iterable[Row]) -> dict[str, list[str]]:
    named: dict[str, list[str]] = {}
    for row in gains:
        if row["verdict"] is not None:
            named.setdefault(row["verdict"], []).append(str(row["strategy"]))
    return named


def _gained(gains: Iterable[Row], declared: DeclaredObjective) -> list[str]:
    """A line for each strategy that differs from the baseline, and one for those that do not."""
    rows = list(gains)
    lines = []
    for row in rows:
        if row["verdict"] in ("better", "worse"):
            change, low, high = (
                formats.percent(-row[key], 2, signed=True) for key in ("value", "high", "low")
            )
            lines.append(
                f"{row['strategy']}: {declared.words} {change} against {row['baseline']} "
                f"(95 % interval {low} to {high}), {row['verdict']}."
            )
    unclear = _by_verdict(rows).get("not distinguishable", [])
    if lines and unclear:
        margins = {str(row["strategy"]): row.get("not_worse_by") for row in rows}
        named = [f"{name}{_at_most(margins[name])}" for name in unclear]
        lines.append(f"Not distinguishable from {rows[0]['baseline']}: {formats.comma(named)}.")
    return lines


def _at_most(margin: float | None) -> str:
    """By how much a strategy may be worse, as a part; empty if unknown."""
    if margin is None or not formats.finite(margin):
        return ""
    return f" (not worse by more than {formats.percent(margin, 2)})"


_ON_TARGET = {
    "better": "gains more on {}",
    "worse": "gains less on {}",
    "not distinguishable": "does not gain distinguishably more or less on {}",
}
_ON_OTHERS = {
    "better": "keeps the others better",
    "worse": "keeps the others worse",
    "not distinguishable": "keeps the others neither better nor worse",
}


def _expanded(on_target: Row, on_others: Row, target: str) -> str:
    gain, others = (row["verdict"] for row in (on_target, on_others))
    margin = on_others.get("not_worse_by")
    known = others == "not distinguishable" and margin is not None and formats.finite(margin)
    at_most = f" (not worse by more than {formats.number(margin)} in sum)" if known else ""
    return (
        f"{on_target['strategy']} {_ON_TARGET[gain].format(target)} and {_ON_OTHERS[others]} "
        f"than {on_target['baseline']}{at_most}."
    )


def overall(compared: Compared, metrics: Sequence[str]) -> Table:
    """A row a strategy: by each metric its mean over the domains, and its gain."""
    columns, rows = ["strategy"], dict[str, list[Cell]]()
    for metric in metrics:
        level, name, form = objective.column(compared.declared, metric, NAMES[metric].lower())
        columns += [name, f"gain over {compared.baseline}, %"]
        gains = compared.rows(metric, "relative_gain")
        for strategy, row in compared.rows(metric, level, against.ALL).items():
            gain = _gain(gains[strategy]) if strategy in gains else NOTHING
            rows.setdefault(strategy, []).extend((_level(row, form), gain))
    over = compared.rows(LOSS, against.BEYOND)
    columns += ["domains beyond the tolerance"] if over else []
    for strategy, row in over.items():
        rows[strategy].append(Cell(row["value"], formats.number(row["value"], 1)))
    return Table("", columns, rows)


def each(compared: Compared, metric: str) -> Table:
    """A row and a column a strategy: the relative gain of the row's over the column's."""
    s = compared.summary
    found = page.records(s[(s["metric"] == metric) & (s["measure"] == against.EACH)])
    gains = {(row["strategy"], row["baseline"]): row for row in found}
    names = list(compared.rows(metric, "value", against.ALL))
    rows = {
        mine: tuple(
            _gain(gains[mine, other], 1) if (mine, other) in gains else NOTHING for other in names
        )
        for mine in names
    }
    return Table(f"{NAMES[metric]}: gain of the row over the column, %", ("strategy", *names), rows)


def expansion(compared: Compared, metric: str) -> Table:
    """A row a strategy: target gain, sum of the changes of the others, degradation avoided."""
    others = compared.rows(metric, "others_change")
    spared = compared.rows(metric, "less_degradation")
    rows = {
        strategy: (
            _since_base(row, metric),
            _difference(row, metric),
            _since_base(others[strategy], metric),
            _difference(others[strategy], metric),
            _spared(spared[strategy]) if strategy in spared else NOTHING,
        )
        for strategy, row in compared.rows(metric, "target_gain").items()
    }
    versus = f"against {compared.baseline}"
    columns = ("strategy", "target gain", versus, "sum of the others' changes", versus)
    return Table(
        f"{NAMES[metric]}, {UNITS[metric]}", (*columns, "degradation of the others avoided"), rows
    )


def by_domain(compared: Compared, metric: str) -> Table:
    """A row a domain, the mean of all first; a column a strategy: its paired difference."""
    level = compared.rows(metric, "value", against.ALL)
    strategies = [s for s in level if s != compared.baseline]
    rows = {}
    for domain in (against.ALL, *compared.domains):
        found = compared.rows(metric, "value", domain)
        if found:
            own = found.get(compared.baseline)
            rows[domain] = (
                _level(own, metric) if own else NOTHING,
                *(_difference(found[s], metric) if s in found else NOTHING for s in strategies),
            )
    title = f"{NAMES[metric]}: difference from {compared.baseline}, {UNITS[metric]}"
    return Table(title, ("domain", compared.baseline, *strategies), rows)


def _level(row: Row, metric: str) -> Cell:
    """A mean over seeds, without its interval: verdicts are on differences."""
    value = row["value"]
    return Cell(value, formats.percent(value) if metric != LOSS else formats.number(value))


def _gain(row: Row, digits: int = 2) -> Cell:
    span = formats.span(row["low"], row["high"], digits)
    return Cell(row["value"], formats.points(row["value"], digits), span, row["verdict"] or "")


def _since_base(row: Row, metric: str) -> Cell:
    span = _scaled_span(row["value_low"], row["value_high"], metric)
    return Cell(row["value"], _scaled(row["value"], metric), span)


def _difference(row: Row, metric: str) -> Cell:
    if row["difference"] is None:
        return NOTHING
    span = _scaled_span(row["low"], row["high"], metric)
    verdict = row["verdict"] or ""
    return Cell(row["difference"], _scaled(row["difference"], metric), span, verdict)


def _spared(row: Row) -> Cell:
    span = formats.span(row["value_low"], row["value_high"], 0)
    part = row["value"]
    return NOTHING if part is None else Cell(part, formats.percent(part, 0), span)


def _scaled(value: float, metric: str) -> str:
    scale, digits = _SCALES[metric]
    return formats.number(scale * value, digits, signed=True)


def _scaled_span(low: float | None, high: float | None, metric: str) -> str:
    scale, digits = _SCALES[metric]
    return formats.span(low, high, digits, scale)


_SCALES = {LOSS: (1.0, 3), against.ACCURACY: (100.0, 1)}
"""What a number is multiplied by to be shown, and with how many digits."""
