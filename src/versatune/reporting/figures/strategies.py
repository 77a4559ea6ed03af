"""Strategies of a comparison beside each other."""

import html
import math
from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from versatune.evaluation import comparison as against
from versatune.evaluation.crossed import Draw
from versatune.evaluation.results import LOSS
from versatune.reporting.colours import INK, MUTED, as_text
from versatune.reporting.style import (
    axes_of,
    domain_styles,
    empty,
    figure,
    interval,
    label,
    lay_out_grid,
    legend_below,
    named_rows,
    numbers,
    round_axis,
)

TITLES = {
    LOSS: "Held-out loss against {} (nats per token)",
    against.ACCURACY: "Accuracy against {} (percentage points)",
}


def differences(
    comparison: pd.DataFrame,
    domains: Sequence[str],
    baseline: str,
    metric: str = LOSS,
    summary: pd.DataFrame | None = None,
) -> go.Figure:
    """Strategies against the baseline, paired by seed: a panel for the mean, one a domain.

    ``comparison``: the table of that name; ``metric``: ``nats_per_token`` or ``accuracy``. Small
    rings are single seeds, the dot is their mean with its 95 % interval, that of
    ``summary`` (none for fewer than :data:`versatune.evaluation.comparison.MIN_SEEDS`), or of one
    made only of the comparison.
    """
    title = TITLES[metric].format(baseline)
    found = against.scores(comparison, metric)
    said = against.summarise(comparison, baseline) if summary is None else summary
    said = said[(said["metric"] == metric) & (said["measure"] == "value")]
    ends = {(row["strategy"], row["domain"]): row for row in said.to_dict("records")}
    panels = [against.ALL, *(d for d in domains if any(d in by for by in found.values()))]
    strategies = [s for s in dict.fromkeys(name for name, _ in found) if s != baseline]
    if not strategies:
        return empty(title, "There is no strategy beside the baseline for which it was measured.")
    fig = figure(
        title,
        "Each strategy minus the baseline (the line at 0), trained with the same seed. Rings: "
        "single seeds. Dot: their mean, with its 95 % interval over seeds and rows. "
        f"Further {'left' if metric == LOSS else 'right'} is better.",
        400,
    )
    # Lines have whole names: shortened ones may be equal.
    names = [html.escape(strategy) for strategy in strategies]
    ticks = [label(strategy, 24) for strategy in strategies]
    colours = {against.ALL: INK} | {d: s.colour for d, s in domain_styles(domains).items()}
    for i, domain in enumerate(panels):
        values = {key: _value(by, domain) for key, by in found.items()}
        for name, strategy in zip(names, strategies, strict=True):
            scale = 1 if metric == LOSS else 100
            each = _differences(values, strategy, baseline, scale)
            row = ends.get((strategy, domain), {})
            span = tuple(scale * float(row.get(end, math.nan)) for end in ("low", "high"))
            _strategy(fig, name, each, span, colours[domain], axes_of(i))
    titles = {d: "mean of the domains" if d == against.ALL else label(d, 24) for d in panels}
    rows, texts = dict(zip(names, ticks, strict=True)), [as_text(colours[d]) for d in panels]
    named_rows(fig, rows, [titles[d] for d in panels], texts, 30)
    fig.update_xaxes(rangemode="tozero", zeroline=True, zerolinecolor=MUTED, matches="x")
    fig.update_layout(xaxis_matches=None)  # the first is the one that the others match
    return fig


def _value(by_domain: Mapping[str, float], domain: str) -> float | None:
    if domain == against.ALL:
        return sum(by_domain.values()) / len(by_domain)
    return by_domain.get(domain)


def _differences(
    values: Mapping[tuple[str, Draw], float | None], strategy: str, baseline: str, scale: float
) -> dict[Draw, float]:
    """By seed (and base model), of those both have."""
    return {
        seed: scale * (mine - theirs)
        for (name, seed), mine in values.items()
        if name == strategy and mine is not None
        if (theirs := values.get((baseline, seed))) is not None
    }


def _strategy(
    fig: go.Figure,
    name: str,
    values: Mapping[Draw, float],
    span: tuple[float, ...],
    colour: str,
    axes: dict[str, str],
) -> None:
    """The seeds of one strategy in one panel, and their mean with the ends of its interval."""
    known = list(values.values())
    if not known:
        return
    fig.add_scatter(
        name=f"{name} seeds",
        x=known,
        y=[name] * len(known),
        customdata=list(values),
        mode="markers",
        marker={"color": colour, "symbol": "circle-open", "size": 6},
        hovertemplate=f"{name}, seed %{{customdata}}: %{{x:+.3f}}<extra></extra>",
        **axes,
    )
    mean = math.fsum(known) / len(known)
    low, high = span if all(map(math.isfinite, span)) else (None, None)
    fig.add_scatter(
        name=name,
        x=[mean],
        y=[name],
        mode="markers",
        marker={"color": colour, "size": 10},
        error_x=interval(mean, low, high, colour),
        hovertemplate=f"{name}, mean of {len(known)}: %{{x:+.3f}}<extra></extra>",
        **axes,
    )


def shares_by_strategy(history: pd.DataFrame, domains: Sequence[str]) -> go.Figure:
    """Shares asked for over the rounds, a panel a strategy, the mean over its seeds.

    ``history``: the ``comparison_history`` table.
    """
    fig = figure(
        "Mixture over rounds, by strategy",
        "Share of each domain that the strategy asked for, the mean over its seeds.",
        400,
    )
    trained = history[history["round"] > 0]
    means = trained.groupby(["strategy", "domain", "round"])["weight"].mean().sort_index()
    strategies = list(dict.fromkeys(trained["strategy"]))
    styles = domain_styles(domains)
    for i, strategy in enumerate(strategies):
        for domain in domains:
            line = means.loc[strategy, domain]
            fig.add_scatter(
                name=label(domain),
                x=line.index.tolist(),
                y=numbers(line),
                mode="lines+markers",
                line={"color": styles[domain].colour, "dash": styles[domain].dash, "width": 2},
                marker={"size": 4},
                hovertemplate="%{y:.1%}",
                showlegend=i == 0,
                **axes_of(i),
            )
    lay_out_grid(fig, [label(s, 24) for s in strategies], row_height=150, min_width=230)
    round_axis(fig, trained, ticks=6)
    top = 1.08 * float(means.max())
    fig.update_yaxes(tickformat=".1~%", range=[0, top], nticks=5)
    legend_below(fig)
    return fig
