"""Figures of the data and of the probe."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from versatune.reporting import tables
from versatune.reporting.colours import INK
from versatune.reporting.style import (
    domain_styles,
    empty,
    figure,
    interval,
    label,
    legend_below,
    numbers,
    rows_of_dots,
    set_meta,
)


def knowledge(
    distribution: Mapping[str, Any],
    domains: Sequence[str],
    data_shares: Mapping[str, float] | None = None,
    known_shares: Mapping[str, float] | None = None,
) -> go.Figure:
    """Detected shares with intervals, raw and corrected, beside the data's and the known shares."""
    found = tables.by_domain(distribution)
    shown = [d for d in domains if d in found]
    if not shown:
        return empty("What the base model knows", "The base model was not probed.")
    how = "by a second judge's audit" if distribution.get("audit") else "for the judge's errors"
    caption = (
        "Dot: share of the base model's own texts that belong to the domain, corrected "
        f"{how}, with its 95 % interval. Hollow diamond: before the correction."
    )
    extra = [
        ("Training data", data_shares, "line-ns-open", 16, "Tick: share of the training data."),
        ("Known truth", known_shares, "x-thin-open", 9, "Cross: the true share, known here."),
    ]
    styles = domain_styles(domains)
    names = [label(d) for d in shown]
    colours = [styles[d].colour for d in shown]
    fig = figure("What the base model knows", caption, 110 + 42 * len(shown))
    for name, shares_of, symbol, size, note in extra:
        if shares_of:
            caption += " " + note
            fig.add_scatter(
                name=name,
                x=numbers(shares_of.get(d) for d in shown),
                y=names,
                mode="markers",
                marker={"symbol": symbol, "size": size, "color": INK, "line": {"width": 2}},
                zorder=1,
                hovertemplate="%{y}, " + name.lower() + ": %{x:.1%}<extra></extra>",
            )
    fig.add_scatter(
        name="Raw",
        x=numbers(found[d].get("raw_share") for d in shown),
        y=names,
        mode="markers",
        marker={"color": colours, "symbol": "diamond-open", "size": 9, "line": {"width": 1.5}},
        hovertemplate="%{y}, raw: %{x:.1%}<extra></extra>",
    )
    share, low, high = (
        numbers(found[d].get(key) for d in shown) for key in ("share", "low", "high")
    )
    for i, name in enumerate(names):
        fig.add_scatter(
            name="Corrected",
            x=[share[i]],
            y=[name],
            mode="markers",
            marker={"color": colours[i], "size": 11},
            error_x=interval(share[i], low[i], high[i], colours[i]),
            hovertemplate="%{y}, corrected: %{x:.1%}<extra></extra>",
        )
    rows_of_dots(fig)
    fig.update_yaxes(categoryorder="array", categoryarray=names)
    fig.update_xaxes(tickformat=".1~%", rangemode="tozero", title_text="share of the model's texts")
    set_meta(fig, caption=caption)
    return fig


def rejects(report: Mapping[str, Any], domains: Sequence[str]) -> go.Figure:
    """Rows left out at ingest, a bar a reason, coloured by domain."""
    table = tables.reject_counts(report)
    table = table[table["rows"] > 0]
    if table.empty:
        return empty("Rows left out at ingest", "No row was left out.")
    totals = table.groupby("reason")["rows"].sum().sort_values(ascending=False)
    fig = figure(
        "Rows left out at ingest",
        "Rows of the sources that were not used, by reason; colours are domains.",
        130 + 34 * len(totals),
    )
    names = [label(reason, 40) for reason in totals.index]
    styles = domain_styles(domains)
    for domain in domains:
        rows = table[table["domain"] == domain].set_index("reason")["rows"]
        if len(rows):
            fig.add_bar(
                name=label(domain),
                orientation="h",
                y=names,
                x=[int(rows.get(reason, 0)) for reason in totals.index],
                marker_color=styles[domain].colour,
                hovertemplate="%{x:,} rows of " + label(domain) + "<extra></extra>",
            )
    fig.update_layout(barmode="stack", bargap=0.35)
    fig.update_yaxes(autorange="reversed", showgrid=False, tickfont={"color": INK, "size": 13})
    fig.update_xaxes(title_text="rows")
    legend_below(fig)
    return fig
