"""Figures of the forecast and the outcome."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from versatune.reporting.colours import INK, MUTED
from versatune.reporting.forecast import advice, named, unit
from versatune.reporting.style import (
    axes_of,
    domain_styles,
    dot,
    empty,
    figure,
    label,
    named_rows,
    rows_of_dots,
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
        row, said, ring = html.escape(name), label(named(name)), name != made["strategy"]
        hover = f"{said}: %{{x:+.2f}} {unit(made)}"
        dot(fig, row, row, gains, INK, hover, ring=ring, size=10, **axes_of(0))
        for i, domain in enumerate(panels, start=1):
            ends = [entry["domains"][domain][key] for key in ("loss", "low", "high")]
            colour, axes = styles[domain].colour, axes_of(i)
            dot(fig, row, row, ends, colour, f"{said}: %{{x:.3f}}", ring=ring, size=10, **axes)
    for i, level in enumerate([0.0, *(made["base"][d] for d in panels)]):
        axes = axes_of(i)
        fig.add_shape(
            type="line", x0=level, x1=level, y0=0, y1=1,
            xref=axes["xaxis"], yref=f"{axes['yaxis']} domain",
            line={"color": MUTED, "width": 1, "dash": "dash" if i else "solid"}, layer="below",
        )  # fmt: skip
    titles = [f"gain over equal shares, {unit(made)}", *(label(d, 24) for d in panels)]
    named_rows(
        fig, dict(zip(map(html.escape, strategies), ticks, strict=True)), titles, colours, 28
    )
    return fig


def forecast_and_outcome(table: pd.DataFrame, domains: Sequence[str]) -> go.Figure:
    """Each domain's change as forecast, with its interval, and the outcome.

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
        for what, ends in (("forecast", (expected, low, high)), ("outcome", (came,))):
            hover = f"{name}, {what}: %{{x:+.1f}} %"
            dot(fig, f"{name} {what}", name, ends, colour, hover, ring=what == "forecast")
    rows_of_dots(fig)
    fig.update_layout(margin_t=24 + 32)
    fig.update_xaxes(title_text="change of held-out loss, %")
    return fig
