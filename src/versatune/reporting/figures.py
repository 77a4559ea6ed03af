"""The figures: each a function from artifacts to one Plotly figure with exactly their numbers.

A figure's ``layout.meta`` holds what the page needs beside it: ``caption`` (how to read it) and
``grid`` (how to lay its panels out at another width). Where there is nothing to draw, the figure
says why.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from versatune.reporting import tables
from versatune.reporting.style import (
    INK,
    MUTED,
    DomainStyle,
    domain_styles,
    empty,
    figure,
    label,
    lay_out_grid,
    legend_below,
    numbers,
    set_meta,
    spread,
)

MANY = 8
"""Up to so many domains share one chart of lines; with more, each gets a panel or a row."""

UNITS = {"rows": "rows", "tokens": "tokens", "supervised_tokens": "supervised tokens"}


def shares(history: pd.DataFrame, domains: Sequence[str], unit: str = "tokens") -> go.Figure:
    """Share of each domain asked for, and realised in ``unit``, over the rounds."""
    caption = (
        f"Share of {UNITS.get(unit, unit)}. The line is what the mixture asked for, a ring is "
        "what the round was really made of: a ring on its line means it got what it asked for."
    )
    fig = figure("Mixture over rounds", caption, 400)
    styles = domain_styles(domains)
    panels = len(domains) > MANY
    for i, domain in enumerate(domains):
        rows = _of(history, domain)
        axes = _axes(i) if panels else {}
        rounds, colour = rows["round"].tolist(), styles[domain].colour
        fig.add_scatter(
            name=label(domain),
            x=rounds,
            y=numbers(rows["weight"]),
            mode="lines",
            line={"color": colour, "dash": styles[domain].dash, "width": 2},
            hovertemplate="%{y:.1%} asked for",
            showlegend=False,
            **axes,
        )
        fig.add_scatter(
            name=label(domain),
            x=rounds,
            y=numbers(rows[f"realised_share_{unit}"]),
            mode="markers",
            marker={"color": colour, "symbol": "circle-open", "size": 8, "line": {"width": 1.5}},
            hovertemplate="%{y:.1%} realised",
            showlegend=False,
            **axes,
        )
    if panels:
        _panels(fig, history, domains, styles, row_height=110, min_width=180)
        fig.update_yaxes(tickformat=".1~%", rangemode="tozero")
        return fig
    _round_axis(fig, history)
    fig.update_yaxes(tickformat=".1~%", rangemode="tozero", title_text=f"share of {UNITS[unit]}")
    _end_labels(fig, history, "weight", styles, from_zero=True)
    return fig


def held_out_losses(
    history: pd.DataFrame, domains: Sequence[str], reference: Mapping[str, Any] | None = None
) -> go.Figure:
    """Held-out loss of each domain over the rounds, a panel a domain, reference line dashed."""
    known = tables.by_domain(reference)
    caption = "Held-out loss in nats per token, each domain on its own scale; lower is better."
    if known:
        caption += (
            " The dashed line is the reference: what a model reaches that learns this domain alone."
        )
    fig = figure("Held-out loss over rounds", caption, 400)
    styles = domain_styles(domains)
    for i, domain in enumerate(domains):
        rows = _of(history, domain)
        fig.add_scatter(
            name=label(domain),
            x=rows["round"].tolist(),
            y=numbers(rows["validation_loss"]),
            mode="lines+markers",
            line={"color": styles[domain].colour, "width": 2},
            marker={"size": 5},
            hovertemplate="round %{x}: %{y:.3f}<extra></extra>",
            showlegend=False,
            **_axes(i),
        )
        if domain in known and len(rows):
            level = numbers([known[domain]["nats_per_token"]])[0]
            fig.add_scatter(
                name=f"{label(domain)} reference",
                x=[rows["round"].min(), rows["round"].max()],
                y=[level, level],
                mode="lines",
                line={"color": MUTED, "dash": "dash", "width": 1.5},
                hovertemplate="reference: %{y:.3f}<extra></extra>",
                showlegend=False,
                **_axes(i),
            )
    _panels(fig, history, domains, styles, row_height=130, min_width=230)
    return fig


def potential_and_forgetting(history: pd.DataFrame, domains: Sequence[str]) -> go.Figure:
    """Learnable potential and forgetting degree over the rounds, beside each other."""
    caption = (
        "Learnable potential: how far the held-out loss still lies above the reference, as a part "
        "of the loss. Forgetting: how far the held-out loss lies above its lowest so far (or above "
        "the round before, if configured so), 0 if it does not."
    )
    fig = figure("What is left to learn, what is being forgotten", caption, 420)
    columns = {
        "learnable_potential": "Learnable potential",
        "forgetting_degree": "Forgetting degree",
    }
    styles = domain_styles(domains)
    for i, (column, title) in enumerate(columns.items()):
        if len(domains) > MANY:
            _heatmap(fig, history, domains, column, title, _axes(i), first=i == 0)
            continue
        for domain in domains:
            rows = _of(history, domain)
            fig.add_scatter(
                name=label(domain),
                x=rows["round"].tolist(),
                y=numbers(rows[column]),
                mode="lines+markers",
                line={"color": styles[domain].colour, "width": 2},
                marker={"size": 5},
                hovertemplate="%{y:.1%}",
                showlegend=i == 0,
                **_axes(i),
            )
    many = len(domains) > MANY
    height = 26 * len(domains) if many else 240
    lay_out_grid(fig, list(columns.values()), row_height=height, min_width=330)
    _round_axis(fig, history)
    if many:
        fig.update_yaxes(autorange="reversed", showgrid=False)
        fig.update_xaxes(showgrid=False)
    else:
        fig.update_yaxes(tickformat=".1~%", rangemode="tozero")
        legend_below(fig)
    return fig


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
        colour = styles[row.domain].colour
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
                error_x=_interval(value, low, high, colour),
                hovertemplate=f"{names[i]}, {model}: %{{x:{'.3f' if loss else '.1%'}}}"
                "<extra></extra>",
            )
    fig.update_layout(showlegend=False, margin_t=24 + 32)
    fig.update_yaxes(autorange="reversed", showgrid=False, tickfont={"color": INK, "size": 13})
    fig.update_xaxes(title_text="nats per token" if loss else "accuracy")
    if not loss:
        fig.update_xaxes(tickformat=".1~%")
    return fig


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
    caption = (
        "Dot: share of the base model's own texts that belong to the domain, corrected for the "
        "judge's errors, with its 95 % interval. Hollow diamond: before the correction."
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
            error_x=_interval(share[i], low[i], high[i], colours[i]),
            hovertemplate="%{y}, corrected: %{x:.1%}<extra></extra>",
        )
    fig.update_layout(showlegend=False)
    fig.update_yaxes(
        autorange="reversed",
        showgrid=False,
        tickfont={"color": INK, "size": 13},
        categoryorder="array",
        categoryarray=names,
    )
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


def _of(history: pd.DataFrame, domain: str) -> pd.DataFrame:
    return history[history["domain"] == domain].sort_values("round")


def _axes(i: int) -> dict[str, str]:
    suffix = str(i + 1) if i else ""
    return {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}


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


def _interval(value: float | None, low: float | None, high: float | None, colour: str) -> Any:
    if value is None or low is None or high is None:
        return None
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value],
        "arrayminus": [value - low],
        "color": colour,
        "thickness": 1.5,
        "width": 4,
    }


def _round_axis(fig: go.Figure, history: pd.DataFrame) -> None:
    rounds = sorted(history["round"].unique())
    few = len(rounds) <= 12
    fig.update_xaxes(title_text="round", tickformat="d", **({"dtick": 1} if few else {"nticks": 8}))
    fig.update_layout(hovermode="x unified")


def _panels(
    fig: go.Figure,
    history: pd.DataFrame,
    domains: Sequence[str],
    styles: Mapping[str, DomainStyle],
    row_height: int,
    min_width: int,
) -> None:
    titles = [f'<span style="color:{styles[d].colour}">{label(d, 24)}</span>' for d in domains]
    lay_out_grid(fig, titles, row_height=row_height, min_width=min_width)
    _round_axis(fig, history)
    fig.update_xaxes(dtick=None, nticks=5)
    fig.update_yaxes(nticks=5)


def _end_labels(
    fig: go.Figure,
    history: pd.DataFrame,
    column: str,
    styles: Mapping[str, DomainStyle],
    from_zero: bool = False,
) -> None:
    """The domains' names at the right end of their lines, moved apart where they would touch."""
    last = {d: numbers(_of(history, d)[column].tail(1)) for d in styles}
    ends = {d: found[0] for d, found in last.items() if found and found[0] is not None}
    values = [v for trace in fig.data for v in trace.y if v is not None]
    if not ends or not values:
        return
    bottom, top = (0.0 if from_zero else min(values)), max(values)
    margin = (top - bottom) * 0.06 or 0.05
    top, bottom = top + margin, bottom if from_zero else bottom - margin
    gap = (top - bottom) * 17 / (fig.layout.height - 104)
    for domain, y in zip(ends, spread(list(ends.values()), gap), strict=True):
        fig.add_annotation(
            text=f"<b>{label(domain, 14)}</b>",
            font={"color": styles[domain].colour, "size": 13},
            xref="paper",
            x=1,
            y=y,
            xanchor="left",
            xshift=8,
            showarrow=False,
        )
    width = 12 + 8 * max(len(label(d, 14)) for d in ends)
    fig.update_yaxes(range=[bottom, top])
    fig.update_layout(margin_r=width)


def _heatmap(
    fig: go.Figure,
    history: pd.DataFrame,
    domains: Sequence[str],
    column: str,
    title: str,
    axes: dict[str, str],
    first: bool,
) -> None:
    rounds = sorted(history["round"].unique())
    wide = history.pivot_table(index="domain", columns="round", values=column, dropna=False)
    wide = wide.reindex(index=list(domains), columns=rounds)
    fig.add_heatmap(
        name=title,
        x=[int(r) for r in rounds],
        y=[label(d, 20) for d in domains],
        z=[numbers(row) for row in wide.to_numpy()],
        colorscale="Blues" if first else "Reds",
        showscale=False,
        hovertemplate="%{y}, round %{x}: %{z:.1%}<extra></extra>",
        **axes,
    )
