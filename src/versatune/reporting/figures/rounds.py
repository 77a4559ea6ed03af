"""Figures of the rounds of training. Round 0 is the base model."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from versatune.reporting import tables
from versatune.reporting.colours import COLOURS, INK, MUTED, PAPER, RULE
from versatune.reporting.style import (
    GAP_X,
    DomainStyle,
    axes_of,
    domain_styles,
    figure,
    label,
    lay_out_grid,
    legend_below,
    numbers,
    round_axis,
    spread,
    within,
)
from versatune.training.diagnostics import lowest_rounds

MANY = 8
"""At most this many domains share one chart of lines; with more, each gets a panel or a row."""

UNITS = {"rows": "rows", "tokens": "tokens", "supervised_tokens": "supervised tokens"}


def shares(history: pd.DataFrame, domains: Sequence[str], unit: str = "tokens") -> go.Figure:
    """Share of each domain asked for, and realised in ``unit``, over the rounds."""
    caption = (
        f"Share of {UNITS.get(unit, unit)}. The line is what the mixture asked for, a ring is "
        "the realised share: a ring on its line means that the two agree."
    )
    fig = figure("Mixture over rounds", caption, 400)
    history = history[history["round"] > 0]
    styles = domain_styles(domains)
    panels = len(domains) > MANY
    for i, domain in enumerate(domains):
        rows = _of(history, domain)
        axes = axes_of(i) if panels else {}
        colour, name = styles[domain].colour, label(domain)
        line = {"color": colour, "dash": styles[domain].dash, "width": 2}
        _trace(fig, name, rows, "weight", "%{y:.1%} asked for", mode="lines", line=line, **axes)
        marker = {"color": colour, "symbol": "circle-open", "size": 8, "line": {"width": 1.5}}
        got, hover = f"realised_share_{unit}", "%{y:.1%} realised"
        _trace(fig, name, rows, got, hover, mode="markers", marker=marker, **axes)
    if panels:
        _panels(fig, history, domains, styles, row_height=110, min_width=180)
        fig.update_yaxes(tickformat=".1~%", rangemode="tozero")
        return fig
    round_axis(fig, history)
    fig.update_yaxes(tickformat=".1~%", rangemode="tozero", title_text=f"share of {UNITS[unit]}")
    _end_labels(fig, history, styles)
    return fig


def held_out_losses(
    history: pd.DataFrame, domains: Sequence[str], reference: Mapping[str, Any] | None = None
) -> go.Figure:
    """Held-out loss of each domain over the rounds, a panel a domain, reference line dashed."""
    known = {
        domain: level
        for domain, entry in tables.by_domain(reference).items()
        if (level := numbers([entry["nats_per_token"]])[0]) is not None
    }
    caption = (
        "Held-out loss in nats per token, each domain on its own scale; lower is better. "
        "Round 0 is the base model."
    )
    if known:
        caption += (
            " The dashed line is the reference: what a model trained only on this domain reaches."
        )
    caption += (
        " The dotted line is the loss of the round's training rows: where it falls and the "
        "held-out loss does not, rows are memorised. A ring marks the lowest held-out loss."
    )
    fig = figure("Held-out and training loss over rounds", caption, 400)
    styles = domain_styles(domains)
    for i, domain in enumerate(domains):
        rows = _of(history, domain)
        hover = "round %{x}: %{y:.3f}<extra></extra>"
        look = {"mode": "lines+markers", "line": {"color": styles[domain].colour, "width": 2}}
        look |= {"marker": {"size": 5}, **axes_of(i)}
        _trace(fig, label(domain), rows, "validation_loss", hover, **look)
        if domain in known and len(rows):
            fig.add_scatter(
                name=f"{label(domain)} reference",
                x=[rows["round"].min(), rows["round"].max()],
                y=[known[domain]] * 2,
                mode="lines",
                line={"color": MUTED, "dash": "dash", "width": 1.5},
                hovertemplate="reference: %{y:.3f}<extra></extra>",
                showlegend=False,
                **axes_of(i),
            )
    lowest = lowest_rounds(history)
    for i, domain in enumerate(domains):
        _training_loss(fig, _of(history, domain), domain, styles[domain], axes_of(i))
        _lowest(fig, _of(history, domain), domain, lowest.get(domain), axes_of(i))
    _panels(fig, history, domains, styles, row_height=130, min_width=230)
    return fig


def _training_loss(
    fig: go.Figure, rows: pd.DataFrame, domain: str, style: DomainStyle, axes: dict[str, str]
) -> None:
    rows = rows[rows["train_loss"].notna()]
    name, hover = f"{label(domain)} training", "training rows, round %{x}: %{y:.3f}<extra></extra>"
    line = {"color": style.colour, "dash": "dot", "width": 1.5}
    _trace(fig, name, rows, "train_loss", hover, mode="lines", line=line, **axes)


def _lowest(
    fig: go.Figure, rows: pd.DataFrame, domain: str, best: int | None, axes: dict[str, str]
) -> None:
    """A ring around the lowest held-out loss, where a later round lies above it."""
    if best is None or best == rows["round"].max():
        return
    at = rows[rows["round"] == best]
    name, hover = f"{label(domain)} lowest", "lowest, after round %{x}: %{y:.3f}<extra></extra>"
    marker = {"color": INK, "symbol": "circle-open", "size": 11, "line": {"width": 1.5}}
    _trace(fig, name, at, "validation_loss", hover, mode="markers", marker=marker, **axes)


def potential_and_forgetting(history: pd.DataFrame, domains: Sequence[str]) -> go.Figure:
    """Learnable potential and forgetting degree over the rounds, beside each other.

    Without references there is no potential: only forgetting is drawn.
    """
    history = history[history["round"] > 0]
    columns = {"forgetting_degree": "Forgetting degree"}
    title = "What is being forgotten"
    caption = (
        "Forgetting: how far the held-out loss lies above its lowest so far (or above "
        "the round before, if configured so), 0 if it does not."
    )
    if history["learnable_potential"].notna().any():
        columns = {"learnable_potential": "Learnable potential", **columns}
        title = "What is left to learn, what is being forgotten"
        caption = (
            "Learnable potential: how far the held-out loss still lies above the reference, as a "
            f"part of the loss. {caption}"
        )
    fig = figure(title, caption, 420)
    styles = domain_styles(domains)
    for i, (column, title) in enumerate(columns.items()):
        if len(domains) > MANY:
            _cells(fig, history, domains, column, title, axes_of(i))
            continue
        for domain in domains:
            rows = _of(history, domain)
            look: dict[str, Any] = {"mode": "lines+markers"}
            look["line"] = {"color": styles[domain].colour, "width": 2}
            look |= {"marker": {"size": 5}, "showlegend": i == 0, **axes_of(i)}
            _trace(fig, label(domain), rows, column, "%{y:.1%}", **look)
    many = len(domains) > MANY
    height = 26 * len(domains) if many else 240
    gap = 40 + 7 * max(len(label(d, 20)) for d in domains) if many else GAP_X
    lay_out_grid(fig, list(columns.values()), row_height=height, min_width=290, gap=gap)
    round_axis(fig, history)
    if many:
        fig.update_yaxes(showgrid=False)
        fig.update_xaxes(showgrid=False)
        fig.update_layout(barmode="overlay", hovermode="closest", showlegend=False)
    else:
        fig.update_yaxes(tickformat=".1~%", rangemode="tozero")
        if not history["forgetting_degree"].gt(0).any():
            fig.update_layout(
                {axes_of(len(columns) - 1)["yaxis"].replace("y", "yaxis"): {"range": [0, 0.05]}}
            )
        legend_below(fig)
    return fig


def _trace(
    fig: go.Figure, name: str, rows: pd.DataFrame, column: str, hover: str, **look: Any
) -> None:
    """A column over the rounds; ``look``: arguments of the trace, its axes among them."""
    values = {"x": rows["round"].tolist(), "y": numbers(rows[column])}
    fig.add_scatter(name=name, hovertemplate=hover, **values, **{"showlegend": False, **look})


def _of(history: pd.DataFrame, domain: str) -> pd.DataFrame:
    return history[history["domain"] == domain].sort_values("round")


def _panels(
    fig: go.Figure,
    history: pd.DataFrame,
    domains: Sequence[str],
    styles: Mapping[str, DomainStyle],
    row_height: int,
    min_width: int,
) -> None:
    titles = [f'<span style="color:{styles[d].text}">{label(d, 24)}</span>' for d in domains]
    lay_out_grid(fig, titles, row_height=row_height, min_width=min_width)
    round_axis(fig, history, ticks=5)
    fig.update_yaxes(nticks=5)


def _end_labels(fig: go.Figure, history: pd.DataFrame, styles: Mapping[str, DomainStyle]) -> None:
    """The domains' names at the right end of their shares, moved apart where they would touch."""
    last = {d: numbers(_of(history, d)["weight"].tail(1)) for d in styles}
    ends = {d: found[0] for d, found in last.items() if found and found[0] is not None}
    values = [v for trace in fig.data for v in trace.y if v is not None]
    if not ends or not values:
        return
    top = max(values) + (max(values) * 0.06 or 0.05)
    gap = top * 17 / (fig.layout.height - 104)
    heights = within(spread(list(ends.values()), gap), gap, 0.0, top)
    for domain, y in zip(ends, heights, strict=True):
        fig.add_annotation(
            text=f"<b>{label(domain, 14)}</b>",
            font={"color": styles[domain].text, "size": 13},
            xref="paper",
            x=1,
            y=y,
            xanchor="left",
            xshift=8,
            showarrow=False,
        )
    width = 12 + 8 * max(len(label(d, 14)) for d in ends)
    fig.update_yaxes(range=[0.0, top])
    fig.update_layout(margin_r=width)


def _cells(
    fig: go.Figure,
    history: pd.DataFrame,
    domains: Sequence[str],
    column: str,
    title: str,
    axes: dict[str, str],
) -> None:
    """A row a domain and a cell a round, the darker the more.

    Drawn as bars of one height, since the page's build of Plotly has no heat maps.
    """
    place = {domain: i for i, domain in enumerate(domains)}
    rows = history[history["domain"].isin(place)].dropna(subset=column)
    lines = rows["domain"].map(place)
    darkest = COLOURS[0] if column == "learnable_potential" else COLOURS[1]
    fig.add_bar(
        name=title,
        x=rows["round"].tolist(),
        y=[0.92] * len(rows),
        base=[line - 0.46 for line in lines],
        width=0.96,
        marker={
            "color": numbers(rows[column]),
            "colorscale": [[0, PAPER], [1, darkest]],
            "cmin": 0,
            "line": {"width": 1, "color": RULE},
        },
        customdata=[
            [label(name), value] for name, value in zip(rows["domain"], rows[column], strict=True)
        ],
        hovertemplate="%{customdata[0]}, round %{x}: %{customdata[1]:.1%}<extra></extra>",
        **axes,
    )
    names = [label(d, 20) for d in domains]
    fig.update_layout(
        {
            axes["yaxis"].replace("y", "yaxis"): {
                "tickmode": "array",
                "tickvals": list(range(len(names))),
                "ticktext": names,
                "range": [len(names) - 0.5, -0.5],
            }
        }
    )
