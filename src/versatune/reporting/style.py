"""How every figure looks: one colour per domain, one layout, grids that fit any width."""

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from versatune.reporting.colours import COLOURS, INK, MUTED, PAPER, RULE, as_text

DASHES = ("solid", "dash", "dot", "dashdot")
"""Past twelve domains the colours come again with another dash."""

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

PAGE_WIDTH = 1000
"""Plot width in pixels that grids are laid out for until a browser knows better."""

AXIS_HEIGHT, LEGEND_HEIGHT = 48, 40
"""Pixels below a plot: tick labels and axis title, and a legend where there is one."""

GAP_X, GAP_Y = 62, 74
"""Pixels between the panels of a grid: room for tick labels, and for the title above a panel."""


@dataclass(frozen=True)
class DomainStyle:
    """How one domain is drawn, in every figure."""

    colour: str
    dash: str

    @property
    def text(self) -> str:
        """The colour for its name: as ``colour``, dark enough to be read."""
        return as_text(self.colour)


def domain_styles(domains: Iterable[str]) -> dict[str, DomainStyle]:
    """Colour and dash of each domain, only by its place in the list."""
    n = len(COLOURS)
    return {
        name: DomainStyle(COLOURS[i % n], DASHES[i // n % len(DASHES)])
        for i, name in enumerate(domains)
    }


def label(text: Any, width: int = 28) -> str:
    """``text`` for use in a figure: shortened, and escaped (Plotly reads HTML in its texts)."""
    text = str(text)
    short = text if len(text) <= width else text[: width - 1] + "…"
    return html.escape(short)


def numbers(values: Iterable[Any]) -> list[float | None]:
    """Values as plain floats, None where missing or not finite (drawn as a gap)."""
    found = (float("nan") if v is None else float(v) for v in values)
    return [v if abs(v) < float("inf") else None for v in found]


def figure(title: str, caption: str, height: int) -> go.Figure:
    """An empty figure of ours. ``caption`` says in plain words how to read it (kept in meta)."""
    axis = {
        "gridcolor": RULE,
        "linecolor": RULE,
        "zeroline": False,
        "automargin": True,
        "title": {"font": {"color": MUTED, "size": 12}, "standoff": 8},
        "tickfont": {"color": MUTED, "size": 12},
        "ticklabelstandoff": 3,
    }
    template = go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 13, "color": INK},
            "paper_bgcolor": PAPER,
            "plot_bgcolor": PAPER,
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {"bgcolor": PAPER, "bordercolor": RULE, "font": {"color": INK}},
            "title": {"x": 0, "xref": "paper", "xanchor": "left", "font": {"size": 16}},
            "margin": {"l": 56, "r": 16, "t": 56, "b": AXIS_HEIGHT},
        }
    )
    made = go.Figure()
    made.update_layout(template=template, title_text=title, meta={"caption": caption})
    made.update_layout(height=height)
    return made


def empty(title: str, why: str) -> go.Figure:
    """A figure that says why there is nothing to draw; the page prints only the sentence."""
    fig = figure(title, why, 120)
    fig.add_annotation(text=label(why, 120), showarrow=False, font={"color": MUTED})
    fig.update_xaxes(visible=False)
    fig.update_yaxes(visible=False)
    set_meta(fig, empty=True)
    return fig


def legend_below(fig: go.Figure) -> None:
    """Put the legend under the plot. The page replaces it by another, which can wrap."""
    fig.update_layout(
        legend={"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"},
        legend_traceorder="normal",
        margin_b=LEGEND_HEIGHT + AXIS_HEIGHT,
    )
    set_meta(fig, legend=True)


def round_axis(fig: go.Figure, history: pd.DataFrame, ticks: int = 12) -> None:
    """Whole rounds below the plot, about ``ticks`` of them at most, and one box for all that stands
    at a round, headed by its number."""
    last = int(history["round"].max()) if len(history) else 1
    step = max(1, -(-last // ticks))
    fig.update_xaxes(title_text="round", tickformat="d", tick0=0, dtick=step)
    fig.update_layout(hovermode="x unified")
    fig.update_xaxes(unifiedhovertitle_text="round %{x}")


def set_meta(fig: go.Figure, **values: Any) -> None:
    """Add to the figure's notes for the page (``layout.meta``)."""
    fig.update_layout(meta={**fig.layout.meta, **values})


def lay_out_grid(
    fig: go.Figure,
    titles: Sequence[str],
    row_height: int,
    min_width: int,
    gap: int = GAP_X,
) -> None:
    """Place the axes x1/y1 ... xn/yn in a grid, each with its title above it, left-aligned.

    The page does the same again with the width it finds (``meta.grid``), down to one column.
    ``row_height`` and ``min_width`` are pixels of one panel, without the gaps; ``gap`` is what
    the tick labels of the panel to the right need.
    """
    n = len(titles)
    columns = max(1, min(n, PAGE_WIDTH // (min_width + gap)))
    rows = -(-n // columns)
    inner = rows * row_height + (rows - 1) * GAP_Y
    gap_x, gap_y = gap / PAGE_WIDTH, GAP_Y / inner
    width = (1 - (columns - 1) * gap_x) / columns
    height = (1 - (rows - 1) * gap_y) / rows
    for i, title in enumerate(titles):
        row, column = divmod(i, columns)
        left, top = column * (width + gap_x), 1 - row * (height + gap_y)
        suffix = str(i + 1) if i else ""
        fig.update_layout(
            {
                f"xaxis{suffix}": {"domain": [left, left + width], "anchor": f"y{suffix}"},
                f"yaxis{suffix}": {
                    "domain": [max(0.0, top - height), top],
                    "anchor": f"x{suffix}",
                },
            }
        )
        fig.add_annotation(
            text=f"<b>{title}</b>",
            xref=f"x{suffix} domain",
            yref=f"y{suffix} domain",
            x=0,
            y=1,
            xanchor="left",
            yanchor="bottom",
            showarrow=False,
        )
    margin = {"l": 48, "r": 16, "t": 84, "b": AXIS_HEIGHT}
    fig.update_layout(height=inner + margin["t"] + margin["b"], margin=margin)
    set_meta(
        fig,
        grid={
            "panels": n,
            "row_height": row_height,
            "min_width": min_width,
            "gap_x": gap,
            "gap_y": GAP_Y,
        },
    )


def named_rows(
    fig: go.Figure,
    rows: Mapping[str, str],
    titles: Sequence[str],
    colours: Sequence[str],
    row_height: int,
) -> None:
    """A grid of panels with a line for each of ``rows``, the first on top: their names in the
    traces, and as they are shown. ``colours``: of the titles."""
    lay_out_grid(
        fig,
        [f'<span style="color:{c}">{t}</span>' for c, t in zip(colours, titles, strict=True)],
        row_height=max(60, row_height * len(rows)),
        min_width=200,
        gap=40 + 7 * max(map(len, rows.values())),
    )
    names, ticks = list(rows), list(rows.values())
    fig.update_layout(showlegend=False)
    fig.update_yaxes(
        showgrid=False, categoryorder="array", categoryarray=names, autorange="reversed",
        tickmode="array", tickvals=names, ticktext=ticks,
    )  # fmt: skip
    fig.update_xaxes(nticks=5, tickangle=0)


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Positions moved apart until neighbours are ``gap`` away, their order and centre kept.

    For labels at the ends of lines. Shape (k,) in and out.
    """
    order = sorted(range(len(positions)), key=positions.__getitem__)
    groups: list[tuple[list[int], float]] = []  # members in order, centre
    for i in order:
        members, centre = [i], positions[i]
        while groups and (
            groups[-1][1] + gap * (len(groups[-1][0]) - 1) / 2 + gap
            > centre - gap * (len(members) - 1) / 2
        ):
            before, _ = groups.pop()
            members = before + members
            centre = sum(positions[m] for m in members) / len(members)
        groups.append((members, centre))
    placed = list(positions)
    for members, centre in groups:
        for n, member in enumerate(members):
            placed[member] = centre + gap * (n - (len(members) - 1) / 2)
    return placed


def within(positions: Sequence[float], gap: float, bottom: float, top: float) -> list[float]:
    """Positions of :func:`spread` moved into ``bottom`` to ``top``, still ``gap`` apart.

    Plotly does not draw a label beyond its axis. Where they are too many, the lowest go below.
    """
    placed = list(positions)
    order = sorted(range(len(placed)), key=placed.__getitem__)
    for i in order:
        placed[i] = max(placed[i], bottom)
        bottom = placed[i] + gap
    for i in reversed(order):
        placed[i] = min(placed[i], top)
        top = placed[i] - gap
    return placed


def axes_of(i: int) -> dict[str, str]:
    """The axes of panel ``i`` (from 0), as arguments of a trace."""
    suffix = str(i + 1) if i else ""
    return {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}


def dot(
    fig: go.Figure,
    name: str,
    row: str,
    ends: Sequence[float | None],
    colour: str,
    hover: str,
    *,
    ring: bool = False,
    size: int = 11,
    **axes: str,
) -> None:
    """A point in the line ``row``; ``ends``: the value, and the ends of its interval if known."""
    value, low, high = (*ends, None, None)[:3]
    fig.add_scatter(
        name=name,
        x=[value],
        y=[row],
        mode="markers",
        marker={
            "color": colour,
            "symbol": "circle-open" if ring else "circle",
            "size": size,
            "line": {"color": colour, "width": 2},
        },
        error_x=interval(value, low, high, colour),
        hovertemplate=f"{hover}<extra></extra>",
        **axes,
    )


def rows_of_dots(fig: go.Figure) -> None:
    """The layout of a figure with a line for each name, the first on top, and no legend."""
    fig.update_layout(showlegend=False)
    fig.update_yaxes(autorange="reversed", showgrid=False, tickfont={"color": INK, "size": 13})


def interval(
    value: float | None, low: float | None, high: float | None, colour: str
) -> dict[str, Any] | None:
    """Error bars of one point in x, from the ends of its interval; None when not all are known."""
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
