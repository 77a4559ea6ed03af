"""What training is forecast to reach, and the outcome."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from versatune.reporting.colours import INK, MUTED
from versatune.reporting.forecast import advice, named
from versatune.reporting.style import (
    axes_of,
    domain_styles,
    empty,
    figure,
    interval,
    label,
    lay_out_grid,
)

TITLE = "Forecast before training"


def forecast(made: Mapping[str, Any], domains: Sequence[str]) -> go.Figure:
    """A panel for the gain over equal shares, one for each domain's loss; a row a strategy.

    ``made``: the content of forecast.json.
    """
    if made["headroom"] is None:
        return empty(TITLE, advice(made))
    strategies = made["strategies"]
    panels = [d for d in domains if d in made["base"]]
    fig = figure(
        TITLE,
        "Dots with 90 % intervals. First the gain over equal shares; then each domain's held-out "
        "loss in nats per token, on its own scale, with the base model's as a dashed line. "
        f"The filled dot is the strategy that trains ({named(made['strategy'])}).",
        400,
    )
    styles = domain_styles(domains)
    ticks = [label(named(name), 24) for name in strategies]
    colours = [INK, *(styles[d].text for d in panels)]
    for name, entry in strategies.items():
        gains = [100 * entry[key] for key in ("gain", "gain_low", "gain_high")]
        full = name == made["strategy"]
        _dot(fig, name, gains, INK, 0, full, "%{x:+.2f} %")
        for i, domain in enumerate(panels, start=1):
            ends = [entry["domains"][domain][key] for key in ("loss", "low", "high")]
            _dot(fig, name, ends, styles[domain].colour, i, full, "%{x:.3f}")
    for i, level in enumerate([0.0, *(made["base"][d] for d in panels)]):
        axes = axes_of(i)
        fig.add_shape(
            type="line", x0=level, x1=level, y0=0, y1=1,
            xref=axes["xaxis"], yref=f"{axes['yaxis']} domain",
            line={"color": MUTED, "width": 1, "dash": "dash" if i else "solid"}, layer="below",
        )  # fmt: skip
    titles = ["gain over equal shares, %", *(label(d, 24) for d in panels)]
    lay_out_grid(
        fig,
        [f'<span style="color:{c}">{t}</span>' for c, t in zip(colours, titles, strict=True)],
        row_height=max(60, 28 * len(ticks)),
        min_width=200,
        gap=40 + 7 * max(len(tick) for tick in ticks),
    )
    names = [html.escape(name) for name in strategies]
    fig.update_layout(showlegend=False)
    fig.update_yaxes(
        showgrid=False, categoryorder="array", categoryarray=names, autorange="reversed",
        tickmode="array", tickvals=names, ticktext=ticks,
    )  # fmt: skip
    fig.update_xaxes(nticks=5, tickangle=0)
    return fig


def _dot(
    fig: go.Figure, name: str, ends: Sequence[float], colour: str, panel: int, full: bool, text: str
) -> None:
    value, low, high = ends
    fig.add_scatter(
        name=html.escape(name),
        x=[value],
        y=[html.escape(name)],
        mode="markers",
        marker={
            "color": colour,
            "symbol": "circle" if full else "circle-open",
            "size": 10,
            "line": {"color": colour, "width": 2},
        },
        error_x=interval(value, low, high, colour),
        hovertemplate=f"{label(named(name))}: {text}<extra></extra>",
        **axes_of(panel),
    )


def forecast_and_outcome(table: pd.DataFrame, domains: Sequence[str]) -> go.Figure:
    """Each domain's change as forecast, with its interval, and as it came.

    ``table`` of :func:`versatune.reporting.forecast.outcome`.
    """
    title = "Change of held-out loss, forecast and outcome"
    if table.empty:
        return empty(title, "There is no forecast to compare the outcome with.")
    styles = domain_styles(domains)
    fig = figure(
        title,
        "Change of each domain's held-out loss. Ring: forecast, with its 90 % interval. Dot: the "
        "outcome, on the same rows. Further left is better.",
        100 + 44 * len(table),
    )
    for row in table.to_dict("records"):
        colour, name = styles[row["domain"]].colour, label(row["domain"])
        expected, low, high, came = (
            100 * (row[key] / row["base"] - 1) for key in ("loss", "low", "high", "came")
        )
        for what, value, symbol, bars in (
            ("forecast", expected, "circle-open", interval(expected, low, high, colour)),
            ("outcome", came, "circle", None),
        ):
            fig.add_scatter(
                name=f"{name} {what}",
                x=[value],
                y=[name],
                mode="markers",
                marker={
                    "color": colour,
                    "symbol": symbol,
                    "size": 11,
                    "line": {"color": colour, "width": 2},
                },
                error_x=bars,
                hovertemplate=f"{name}, {what}: %{{x:+.1f}} %<extra></extra>",
            )
    fig.update_layout(showlegend=False, margin_t=24 + 32)
    fig.update_yaxes(autorange="reversed", showgrid=False, tickfont={"color": INK, "size": 13})
    fig.update_xaxes(title_text="change of held-out loss, %")
    return fig
