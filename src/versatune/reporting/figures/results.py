"""Models beside each other."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from versatune.evaluation.forgetting import LOWER_IS_BETTER
from versatune.evaluation.intervals import mean_stderr, t_interval
from versatune.reporting import tables
from versatune.reporting.style import (
    INK,
    axes_of,
    domain_styles,
    empty,
    figure,
    interval,
    label,
    lay_out_grid,
    numbers,
)


def before_after(table: pd.DataFrame, domains: Sequence[str], kind: str = "loss") -> go.Figure:
    """Base (ring) and tuned (dot) with 95 % intervals; ``table`` from tables.before_after."""
    table = table.iloc[_in_order(table["domain"], domains)]
    loss = kind == "loss"
    title = "Held-out loss before and after" if loss else "Accuracy before and after"
    if table.empty:
        what = "Held-out loss" if loss else "Accuracy"
        return empty(title, f"{what} was not measured for both models.")
    fig = figure(
        title,
        "Ring: base model. Dot: fine-tuned. Thin lines are 95 % intervals. "
        + ("Further left is better." if loss else "Further right is better."),
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
        for model, symbol in (("base", "circle-open"), ("tuned", "circle")):
            value, low, high = numbers(
                [getattr(row, model), getattr(row, f"{model}_low"), getattr(row, f"{model}_high")]
            )
            fig.add_scatter(
                name=f"{names[i]} {model}",
                x=[value],
                y=[names[i]],
                mode="markers",
                marker={
                    "color": colour,
                    "symbol": symbol,
                    "size": 11,
                    "line": {"color": colour, "width": 2},
                },
                error_x=interval(value, low, high, colour),
                hovertemplate=f"{names[i]}, {model}: %{{x:{'.3f' if loss else '.1%'}}}"
                "<extra></extra>",
            )
    fig.update_layout(showlegend=False, margin_t=24 + 32)
    fig.update_yaxes(autorange="reversed", showgrid=False, tickfont={"color": INK, "size": 13})
    fig.update_xaxes(title_text="nats per token" if loss else "accuracy")
    if not loss:
        fig.update_xaxes(tickformat=".1~%")
    return fig


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


def comparison(table: pd.DataFrame, domains: Sequence[str], metric: str = tables.LOSS) -> go.Figure:
    """Strategies beside each other, a panel a domain; ``table`` is the ``comparison`` table.

    Small rings are single seeds, the dot is their mean with its 95 % interval (t over seeds).
    """
    title = "Strategies compared"
    table = table[table["metric"] == metric]
    shown = [domain for domain in domains if (table["domain"] == domain).any()]
    if not shown:
        return empty(title, f"No strategy has a value of {metric}.")
    better = "left" if metric in LOWER_IS_BETTER else "right"
    fig = figure(
        f"{title}: {metric.replace('_', ' ')}",
        "Rings: single seeds. Dot: their mean, with its 95 % interval over seeds. "
        f"Further {better} is better.",
        400,
    )
    styles = domain_styles(domains)
    strategies = list(dict.fromkeys(table["strategy"]))
    names = [label(strategy, 24) for strategy in strategies]
    for i, domain in enumerate(shown):
        rows = table[table["domain"] == domain]
        for name, strategy in zip(names, strategies, strict=True):
            values = numbers(rows.loc[rows["strategy"] == strategy, "value"])
            _strategy(fig, name, values, styles[domain].colour, axes_of(i))
    lay_out_grid(
        fig,
        [f'<span style="color:{styles[d].colour}">{label(d, 24)}</span>' for d in shown],
        row_height=30 * len(names),
        min_width=220,
        gap=40 + 7 * max(len(name) for name in names),
    )
    fig.update_layout(showlegend=False)
    fig.update_yaxes(
        showgrid=False, categoryorder="array", categoryarray=names, autorange="reversed"
    )
    fig.update_xaxes(nticks=5)
    return fig


def _strategy(
    fig: go.Figure, name: str, values: list[float | None], colour: str, axes: dict[str, str]
) -> None:
    """The seeds of one strategy in one domain, and their mean."""
    known = [value for value in values if value is not None]
    if not known:
        return
    fig.add_scatter(
        name=f"{name} seeds",
        x=known,
        y=[name] * len(known),
        mode="markers",
        marker={"color": colour, "symbol": "circle-open", "size": 6},
        opacity=0.6,
        hovertemplate=f"{name}: %{{x:.3f}}<extra></extra>",
        **axes,
    )
    mean, stderr = mean_stderr(np.array(known))
    low, high = numbers(t_interval(mean, stderr, len(known)))
    fig.add_scatter(
        name=name,
        x=[mean],
        y=[name],
        mode="markers",
        marker={"color": colour, "size": 10},
        error_x=interval(mean, low, high, colour),
        hovertemplate=f"{name}, mean of {len(known)}: %{{x:.3f}}<extra></extra>",
        **axes,
    )
