"""The report: one self-contained HTML page from artifacts alone."""

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import plotly.graph_objects as go
import plotly.offline
from markupsafe import Markup

from versatune.reporting import configuration, formats, summary, tables
from versatune.reporting.style import AXIS_HEIGHT, domain_styles

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Artifacts:
    """What the page is made from. All but ``domains`` may be missing; the page then says so."""

    domains: Sequence[str]
    """In the order that settles the colours."""
    figures: Mapping[str, go.Figure] = field(default_factory=dict)
    """By the names used in the template: ``loss_before_after``, ``shares`` and so on."""
    results: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["metric"]))
    """From :func:`versatune.reporting.tables.results`."""
    history: pd.DataFrame | None = None
    ingest: Mapping[str, Any] | None = None
    knowledge: Mapping[str, Any] | None = None
    samples: pd.DataFrame | None = None
    mixture: Mapping[str, Any] | None = None
    base_model: Mapping[str, Any] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    git_commit: str | None = None
    timings: Sequence[Mapping[str, Any]] = ()
    """``name`` and ``seconds`` of each stage, in the order they ran."""


def render(artifacts: Artifacts, samples: int = 120, examples: int = 3) -> str:
    """The whole page as text: no file beside it, no network, nothing but the artifacts in it.

    ``samples``: how many probe texts to show at most, evenly over the domains.
    ``examples``: how many places (file:line) to show of each kind of rejected row.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=formats.number,
        percent=formats.percent,
        points=formats.points,
        duration=formats.duration,
        thousands=formats.thousands,
    )
    styles = domain_styles(artifacts.domains)
    scripts = [plotly.offline.get_plotlyjs(), (TEMPLATES / "report.js").read_text("utf-8")]
    page = environment.get_template("report.html").render(
        a=artifacts,
        losses=_records(tables.only_losses(artifacts.results)),
        accuracies=_records(tables.only_accuracies(artifacts.results)),
        interval=formats.interval,
        said=summary.summarise(artifacts),
        log=_records(tables.round_log(artifacts.history)),
        ingest_rows=_records(tables.ingest_table(artifacts.ingest or {})),
        places=tables.reject_examples(artifacts.ingest or {}, examples),
        texts=sample_rows(artifacts.samples, samples),
        colours={name: style.colour for name, style in styles.items()},
        parameters=configuration.masked(artifacts.parameters),
        seeds=configuration.seeds(artifacts.parameters),
        figures={name: embedded(fig) for name, fig in artifacts.figures.items()},
        css=Markup((TEMPLATES / "report.css").read_text("utf-8")),
        scripts=[Markup(s) for s in scripts],
        hashes=" ".join(f"'sha256-{_sha256(s)}'" for s in scripts),
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


def sample_rows(samples: pd.DataFrame | None, limit: int) -> list[dict[str, Any]]:
    """Up to ``limit`` judged texts, evenly over the judged domains, in their order of sampling.

    Texts without a judgement count as a group of their own; their ``note`` says why.
    """
    if samples is None or samples.empty:
        return []
    each = max(1, limit // samples["domain"].nunique(dropna=False))
    shown = samples.groupby("domain", sort=False, dropna=False).head(each).head(limit)
    return [
        {
            "domain": row["domain"] or "not judged",
            "confidence": row["confidence"],
            "text": row["text"],
            "notes": [n for n in dict.fromkeys((row["status"], row["flag"])) if n and n != "ok"],
        }
        for row in _records(shown)
    ]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain dicts, missing values as None."""
    return [
        {str(k): None if _missing(v) else v for k, v in row.items()}
        for row in table.to_dict("records")
    ]


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
