"""A figure as a PNG, for places that show no interactive ones: MLflow's page, a slide, a chat.

Plotly needs a browser to make one. Matplotlib, which MLflow brings along, draws what our figures
are made of: points, lines, bars, panels in a grid. The numbers are those of the figure.
"""

import html
import io
import math
import re
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from versatune.reporting.colours import INK, MUTED, PAPER, RULE
from versatune.reporting.style import PAGE_WIDTH

SCALE = 1.2
"""Pixels of the picture for each of the figure."""

COLOURS_KEPT = 128
"""Colours of the picture."""

POINT = 72 / 100
"""Points in a pixel of the figure, drawn at 100 pixels an inch."""

MARKERS = {"diamond": "D", "line-ns": "|", "x-thin": "x"}
"""Matplotlib's name of a symbol; others are dots."""

LINES = {"dash": "--", "dot": ":", "dashdot": "-."}


def png(fig: go.Figure) -> bytes:
    """The figure as a PNG of :data:`PAGE_WIDTH` times :data:`SCALE` pixels."""
    from matplotlib.figure import Figure

    layout = fig.layout
    height = layout.height
    drawn = Figure(figsize=(PAGE_WIDTH / 100, height / 100), dpi=100, facecolor=PAPER)
    drawn.text(12 / PAGE_WIDTH, 1 - 14 / height, _plain(layout.title.text), va="top", color=INK,
               fontsize=16 * POINT, fontweight="bold")  # fmt: skip
    if layout.meta.get("empty"):
        drawn.text(0.5, 0.4, _plain(layout.annotations[0].text), ha="center", color=MUTED)
    else:
        panels = _panels(drawn, fig)
        for suffix, axes in panels.items():
            _draw(axes, fig, suffix)
        for note in layout.annotations:
            _annotate(panels, note)
        if layout.meta.get("legend") and layout.showlegend is not False:
            _legend(drawn, fig)
    target = io.BytesIO()
    drawn.savefig(target, format="png", dpi=100 * SCALE)
    return _smaller(target)


def _smaller(picture: io.BytesIO) -> bytes:
    """A third of the bytes: few colours are enough for charts."""
    from PIL import Image

    target = io.BytesIO()
    few = Image.open(picture).convert("RGB").quantize(COLOURS_KEPT, dither=Image.Dither.NONE)
    few.save(target, format="PNG", optimize=True)
    return target.getvalue()


def _panels(drawn: Any, fig: go.Figure) -> dict[str, Any]:
    """The axes by Plotly's suffix, each where the figure has it."""
    height = fig.layout.height
    margin = {side: fig.layout.margin[side] for side in "lrtb"}
    template = fig.layout.template.layout.margin
    margin = {side: template[side] if v is None else v for side, v in margin.items()}
    suffixes = dict.fromkeys((trace.xaxis or "x")[1:] for trace in fig.data)
    first = [s for s in suffixes if not (_axis(fig, "x", s).domain or (0, 1))[0]]
    names = [len(tick) for s in first for tick in _ticks(fig, s)]
    titled = any(_axis(fig, "y", suffix).title.text for suffix in suffixes)
    left = max(margin["l"] + 24 * titled, 24 + 7.5 * max(names, default=0))
    top = max(margin["t"], 48 if "grid" not in fig.layout.meta else 0)
    width, inner = PAGE_WIDTH - left - margin["r"], height - top - margin["b"]
    panels = {}
    for suffix in suffixes:
        x, y = (list(_axis(fig, one, suffix).domain or (0, 1)) for one in "xy")
        box = (
            (left + x[0] * width) / PAGE_WIDTH,
            (margin["b"] + y[0] * inner) / height,
            (x[1] - x[0]) * width / PAGE_WIDTH,
            (y[1] - y[0]) * inner / height,
        )
        panels[suffix] = drawn.add_axes(box)
    return panels


def _axis(fig: go.Figure, one: str, suffix: str) -> Any:
    return fig.layout[f"{one}axis{suffix}"]


def _ticks(fig: go.Figure, suffix: str) -> list[str]:
    """The names on the y axis of a panel, from its first line; none where it has numbers."""
    axis = _axis(fig, "y", suffix)
    if axis.ticktext:
        return [_plain(text) for text in axis.ticktext]
    return [_plain(name) for name in _categories(fig, suffix)]


def _categories(fig: go.Figure, suffix: str) -> list[str]:
    axis = _axis(fig, "y", suffix)
    if axis.categoryarray:
        return list(axis.categoryarray)
    traces = [t for t in fig.data if (t.xaxis or "x")[1:] == suffix]
    return list(dict.fromkeys(y for t in traces for y in t.y if isinstance(y, str)))


def _draw(axes: Any, fig: go.Figure, suffix: str) -> None:
    """The traces of one panel, then its axes."""
    place = {name: i for i, name in enumerate(_categories(fig, suffix))}
    ends = dict.fromkeys(place.values(), 0.0)
    for trace in fig.data:
        if (trace.xaxis or "x")[1:] != suffix:
            continue
        y = [place[v] if isinstance(v, str) else _number(v) for v in trace.y]
        x = [_number(v) for v in trace.x]
        if trace.type == "bar":
            _bar(axes, trace, x, y, ends)
        else:
            _scatter(axes, trace, x, y)
    for shape in fig.layout.shapes:
        if shape.xref == f"x{suffix}":
            style = LINES.get(shape.line.dash, "-")
            axes.axvline(shape.x0, color=shape.line.color, linestyle=style, linewidth=1, zorder=0)
    _finish(axes, fig, suffix, list(place))


def _scatter(axes: Any, trace: Any, x: list[float], y: list[float]) -> None:
    mode, opacity = trace.mode or "", 1.0 if trace.opacity is None else trace.opacity
    if "lines" in mode:
        style = LINES.get(trace.line.dash, "-")
        width = (trace.line.width or 2) * POINT
        axes.plot(x, y, color=trace.line.color, linestyle=style, linewidth=width, alpha=opacity,
                  solid_capstyle="round", zorder=2)  # fmt: skip
    if "markers" not in mode:
        return
    if trace.error_x.array is not None:
        bars = trace.error_x
        spans = [[abs(v) for v in bars.arrayminus], [abs(v) for v in bars.array]]
        axes.errorbar(x, y, xerr=spans, fmt="none", ecolor=bars.color, elinewidth=1.2, capsize=3)
    marker = trace.marker
    symbol = str(marker.symbol or "circle")
    kind = symbol.removesuffix("-open")
    colour = marker.color if marker.color is not None else trace.line.color
    hollow = symbol != kind and kind not in ("line-ns", "x-thin")
    axes.scatter(
        x,
        y,
        s=((marker.size or 6) * POINT) ** 2,
        marker=MARKERS.get(kind, "o"),
        facecolors=PAPER if hollow else colour,
        edgecolors=None if kind in ("line-ns", "x-thin") else colour,
        linewidths=(marker.line.width or 1) * POINT,
        zorder=3,
    )


def _bar(axes: Any, trace: Any, x: list[float], y: list[float], ends: dict[int, float]) -> None:
    """Stacked bars from the left, or cells of a grid, the darker the more."""
    if trace.orientation == "h":
        for value, line in zip(x, y, strict=True):
            axes.barh(line, value, left=ends[int(line)], height=0.65, color=trace.marker.color)
            ends[int(line)] += value
        return
    from matplotlib.colors import LinearSegmentedColormap

    shades = LinearSegmentedColormap.from_list("", [c for _, c in trace.marker.colorscale])
    known = [_number(v) for v in trace.marker.color]
    most = max((v for v in known if v > 0), default=1.0)
    colours = [shades(0.0 if math.isnan(v) else v / most) for v in known]
    axes.bar(x, y, bottom=trace.base, width=trace.width, color=colours, edgecolor=RULE)


def _finish(axes: Any, fig: go.Figure, suffix: str, names: Sequence[str]) -> None:
    """Ranges, ticks, titles and grid of a panel as the figure has them."""
    across, up = _axis(fig, "x", suffix), _axis(fig, "y", suffix)
    if names or up.tickvals:
        places = range(len(names)) if names else up.tickvals
        axes.set_yticks(list(places), _ticks(fig, suffix))
        axes.set_ylim(-0.5, len(places) - 0.5)
    for one, axis in (("x", across), ("y", up)):
        limits = getattr(axes, f"set_{one}lim")
        if axis.rangemode == "tozero" and not axis.range:
            low, high = getattr(axes, f"get_{one}lim")()
            seen = getattr(axes.dataLim, f"interval{one}")
            if seen[0] <= seen[1]:  # else nothing is drawn
                limits(0 if seen[0] >= 0 else low, 0 if seen[1] < 0 else high)
        if axis.range:
            limits(*axis.range)
        _ticked(getattr(axes, f"{one}axis"), axis)
        if axis.title.text:
            axes.set(**{f"{one}label": _plain(axis.title.text)})
        if axis.showgrid is not False:
            axes.grid(axis=one, color=RULE, linewidth=0.8)
    if up.autorange == "reversed":
        axes.invert_yaxis()
    axes.set_axisbelow(True)
    axes.set_facecolor(PAPER)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=12 * POINT, labelcolor=MUTED)
    axes.tick_params(axis="y", labelcolor=INK if names else MUTED)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(fontsize=12 * POINT, color=MUTED)


def _ticked(axis: Any, given: Any) -> None:
    from matplotlib.ticker import MaxNLocator, MultipleLocator

    if given.tickformat and given.tickformat.endswith("%"):
        axis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
    if given.dtick:
        axis.set_major_locator(MultipleLocator(given.dtick))
    elif given.nticks:
        axis.set_major_locator(MaxNLocator(given.nticks))


def _annotate(panels: dict[str, Any], note: Any) -> None:
    """A panel's title, or a name at the end of a line."""
    text, colour = _plain(note.text), _colour(note)
    font = {"color": colour, "fontsize": (note.font.size or 13) * POINT, "fontweight": "bold"}
    if str(note.xref).endswith(" domain"):
        panels[note.xref.removesuffix(" domain")[1:]].set_title(text, loc="left", **font)
        return
    axes = next(iter(panels.values()))
    axes.annotate(
        text, (note.x, note.y), xycoords=("axes fraction", "data"), va="center",
        xytext=((note.xshift or 0) * POINT, 0), textcoords="offset points", annotation_clip=False,
        **font,
    )  # fmt: skip


def _legend(drawn: Any, fig: go.Figure) -> None:
    from matplotlib.lines import Line2D

    shown = {_plain(t.name): t for t in fig.data if t.showlegend is not False}
    handles = [
        Line2D([], [], color=t.marker.color if t.type == "bar" else t.line.color, linewidth=3)
        for t in shown.values()
    ]
    drawn.legend(handles, shown, loc="lower left", ncols=min(8, len(shown)), frameon=False,
                 fontsize=12 * POINT)  # fmt: skip


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _plain(text: Any) -> str:
    """What a figure's text says, without its tags; a dollar sign starts no formula."""
    bare = html.unescape(re.sub(r"<[^>]*>", "", str(text or "")))
    return bare.replace("$", r"\$")


def _colour(note: Any) -> str:
    found = re.search(r"color:([^\";]+)", str(note.text))
    return found[1] if found else str(note.font.color or INK)
