"""Writing a page: templates, figures as JSON, scripts, and a policy for them."""

import base64
import functools
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from versatune.reporting import colours, configuration, formats
from versatune.reporting.style import AXIS_HEIGHT, domain_styles
from versatune.tracking.secrets import masked

TEMPLATES = Path(__file__).parent / "templates"
PLOTLY = Path(__file__).parent / "vendor" / "plotly-basic.min.js"
"""The build of Plotly with only lines, points and bars, a quarter of the whole."""


@dataclass(frozen=True)
class Tile:
    """One key figure: what it is, its value, a word of context."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Summary:
    """The top of a page."""

    headline: str
    details: list[str]
    mood: str
    """``good``, ``mixed``, ``bad`` or ``unknown``: the colour of the verdict."""
    run: str
    tiles: list[Tile] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    """Reasons to doubt the verdict; shown below it."""


@dataclass(frozen=True)
class Setup:
    """How the numbers of a page were made."""

    base_model: Mapping[str, Any] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    git_commit: str | None = None
    command: str | None = None
    date: str | None = None
    device: str | None = None
    peak_memory: int | None = None
    """Bytes."""
    tokens: int | None = None
    """Tokens trained on."""
    baseline: str | None = None
    """A sentence on what the result was compared with, or that it was not compared."""


def write(
    template: str,
    *,
    kind: str,
    domains: Sequence[str],
    said: Summary,
    setup: Setup,
    figures: Mapping[str, go.Figure],
    **context: Any,
) -> str:
    """A whole page as text: no file beside it, no network.

    ``template``: one that extends ``page.html``; ``kind``: what the page calls itself;
    ``domains``: in the order that decides the colours; ``context``: what the template shows.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("number", "percent", "points", "duration", "thousands", "gibibytes"):
        environment.filters[name] = getattr(formats, name)
    script = (TEMPLATES / "report.js").read_text("utf-8")
    plotly, of_plotly = _plotly()
    page: str = environment.get_template(template).render(
        kind=kind,
        said=said,
        setup=setup,
        parameters=masked(setup.parameters),
        seeds=configuration.seeds(setup.parameters),
        colours={name: style.colour for name, style in domain_styles(domains).items()},
        dark=colours.DARK,
        figures={name: embedded(fig) for name, fig in figures.items()},
        css=Markup((TEMPLATES / "report.css").read_text("utf-8")),
        script=Markup(script),
        plotly=plotly,
        hashes=" ".join(f"'sha256-{hashed}'" for hashed in (of_plotly, _sha256(script))),
        interval=formats.span,
        **context,
    )
    return page


def embedded(fig: go.Figure) -> dict[str, Any]:
    """A figure for the page: title, caption and the drawing as JSON that can't end a script."""
    drawing = json.loads(fig.to_json())
    layout = drawing["layout"]
    title = layout.pop("title", {}).get("text", "")
    meta = layout.get("meta", {})
    old = layout.get("margin", {})
    margin = {"l": old.get("l", 56), "r": old.get("r", 16), "t": 28 if "grid" in meta else 8}
    layout["margin"] = {**margin, "b": AXIS_HEIGHT}
    before = {"t": 56, "b": AXIS_HEIGHT} | old
    layout["height"] -= before["t"] + before["b"] - margin["t"] - AXIS_HEIGHT
    if meta.get("legend"):
        layout["showlegend"] = False
    text = json.dumps(drawing, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return {
        "title": title,
        "caption": meta.get("caption", ""),
        "legend": meta.get("legend", False),
        "empty": meta.get("empty", False),
        "json": Markup(text),
    }


@functools.cache
def _plotly() -> tuple[str, str]:
    """Plotly's script as the page holds it, gzipped in base64 (less than half of the text, unpacked
    by report.js), and the SHA-256 of the script itself for the page's policy."""
    text = PLOTLY.read_text("utf-8")
    packed = gzip.compress(text.encode("utf-8"), mtime=0)
    return base64.b64encode(packed).decode("ascii"), _sha256(text)


def records(table: pd.DataFrame | None) -> list[dict[Any, Any]]:
    """Rows as plain dicts, missing values as None; none of no table."""
    if table is None:
        return []
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
