"""A run's result in a few lines: for the end of the terminal's output, and for MLflow."""

import pandas as pd

from versatune.evaluation.objective import DeclaredObjective
from versatune.reporting import formats, tables
from versatune.reporting.summary import headline


def closing_lines(results: pd.DataFrame, declared: DeclaredObjective) -> list[str]:
    """The verdict, then a table of losses and accuracies before and after, a line a domain."""
    found = _by_domain(results)
    width = max((len(name) for name in found), default=0) + 2
    lines = [headline(results, declared)[0]]
    if found:
        lines.append(f"{'':{width}}{'held-out loss':17}accuracy".rstrip())
    lines += [f"{d:{width}}{loss:17}{accuracy}".rstrip() for d, (loss, accuracy) in found.items()]
    return lines


def note(results: pd.DataFrame, declared: DeclaredObjective) -> str:
    """The same as Markdown. MLflow sets no space between columns, so the cells bring their own."""
    verdict, _, details = headline(results, declared)
    head = ["| domain | &emsp;held-out loss | &emsp;accuracy |", "| --- | --- | --- |"]
    rows = [
        f"| {domain} | &emsp;{loss} | &emsp;{accuracy} |"
        for domain, (loss, accuracy) in _by_domain(results).items()
    ]
    parts = [f"**{verdict}**", *([" ".join(details)] if details else [])]
    return "\n\n".join([*parts, "\n".join([*head, *rows])] if rows else parts)


def mean_metrics(results: pd.DataFrame) -> dict[str, float]:
    """``mean_loss`` and ``mean_accuracy`` of the tuned model over the domains, where measured.

    Rounded to four digits: MLflow's table of runs shows numbers as they are.
    """
    parts = {"loss": tables.only_losses(results), "accuracy": tables.only_accuracies(results)}
    return {
        f"mean_{what}": round(float(table.groupby("domain")["tuned"].mean().mean()), 4)
        for what, table in parts.items()
        if len(table)
    }


def _by_domain(results: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Loss and accuracy before and after by domain, in words; last their means."""
    if results.empty:
        return {}
    ends = ["base", "tuned"]
    losses = tables.only_losses(results).groupby("domain", sort=False)[ends].mean()
    accuracies = tables.only_accuracies(results).groupby("domain", sort=False)[ends].mean()
    losses.loc["mean"], accuracies.loc["mean"] = losses.mean(), accuracies.mean()
    names = list(dict.fromkeys([*losses.index[:-1], *accuracies.index[:-1], "mean"]))
    return {
        name: (_ends(losses, name), _ends(100 * accuracies, name, digits=0, unit=" %"))
        for name in names
    }


def _ends(table: pd.DataFrame, name: str, digits: int = 3, unit: str = "") -> str:
    if name not in table.index or not formats.finite(table.loc[name, "tuned"]):
        return "–"
    ends = (formats.number(table.loc[name, end], digits) for end in ("base", "tuned"))
    return " → ".join(ends) + unit
