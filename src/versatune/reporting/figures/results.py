"""Base and tuned model beside each other."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from versatune.reporting.colours import INK
from versatune.reporting.style import (
    domain_styles,
    dot,
    empty,
    figure,
    label,
    numbers,
    rows_of_dots,
)


def before_after(table: pd.DataFrame, domains: Sequence[str], kind: str = "loss") -> go.Figure:
    """Base (ring) and tuned (dot) with 95 % intervals; ``table`` from
    :func:`versatune.reporting.tables.results`."""
    table = table.iloc[_in_order(table["domain"], domains)]
    loss = kind == "loss"
    title = "Held-out loss before and after" if loss else "Accuracy before and after"
    if table.empty:
        what = "Held-out loss" if loss else "Accuracy"
        return empty(title, f"{what} was not measured for both models.")
    fig = figure(
        title,
        "Ring: base model. Dot: fine-tuned. Thin lines are 95 % intervals. "
        + ("Further left is better." if loss else "Further right is better.")
        + (" Tick: what guessing reaches." if _has_chance(table) else ""),
        100 + 44 * len(table),
    )
    styles = domain_styles(domains)
    names = _row_names(table)
    for i, row in enumerate(table.itertuples()):
        colour = styles[str(row.domain)].colour
        fig.add_scatter(
            name=f"{names[i]} change",
            x=numbers([row.base, row.tuned]),
            y=[names[i], names[i]],
            mode="lines",
            line={"color": colour, "width": 5},
            opacity=0.25,
            hoverinfo="skip",
        )
        for model in ("base", "tuned"):
            ends = numbers(getattr(row, f"{model}{end}") for end in ("", "_low", "_high"))
            hover = f"{names[i]}, {model}: %{{x:{'.3f' if loss else '.1%'}}}"
            dot(fig, f"{names[i]} {model}", names[i], ends, colour, hover, ring=model == "base")
    if _has_chance(table):
        fig.add_scatter(
            name="chance",
            x=numbers(table["chance"]),
            y=names,
            mode="markers",
            marker={"color": INK, "symbol": "line-ns-open", "size": 16, "line": {"width": 2}},
            hovertemplate="%{y}, guessing: %{x:.1%}<extra></extra>",
        )
    rows_of_dots(fig)
    fig.update_layout(margin_t=24 + 32)
    fig.update_xaxes(title_text="nats per token" if loss else "accuracy")
    if not loss:
        fig.update_xaxes(tickformat=".1~%")
    return fig


def _has_chance(table: pd.DataFrame) -> bool:
    return "chance" in table and bool(table["chance"].notna().any())


def _in_order(names: pd.Series, domains: Sequence[str]) -> list[int]:
    place = {domain: i for i, domain in enumerate(domains)}
    known = [i for i, name in enumerate(names) if name in place]
    return sorted(known, key=lambda i: place[names.iloc[i]])


def _row_names(table: pd.DataFrame) -> list[str]:
    """The domain, with the task beside it where a domain has more than one."""
    several = table["domain"].duplicated(keep=False)
    return [
        label(f"{row.domain}: {row.task}" if many else row.domain, 34)
        for row, many in zip(table.itertuples(), several, strict=True)
    ]
