"""The report: one self-contained HTML page from artifacts alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from versatune.mixing.config import StrategyParams
from versatune.reporting import page, summary, tables


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
    """``name`` (``stage.step``), ``seconds`` in this run and ``kept`` seconds (of an earlier run,
    whose work this one kept) of each step, in the order to be shown."""
    references: Mapping[str, Any] | None = None
    strategy: StrategyParams | None = None
    """The one that trained."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """The ``training_summary``."""
    run: Mapping[str, Any] = field(default_factory=dict)
    """``began`` and ``command`` of the run."""
    models: pd.DataFrame | None = None
    """Mean held-out loss by model, where others than base and tuned were measured."""
    changed: pd.DataFrame | None = None
    """The ``changed_items`` table."""
    answers: pd.DataFrame | None = None
    """The ``answers`` table."""
    drift: pd.DataFrame | None = None
    """The ``drift`` table."""
    own_texts: Mapping[str, Any] = field(default_factory=dict)
    """The ``own_texts_report``."""


CHANGES = 3
"""How many questions that became right, and that became wrong, the page shows of a domain."""


def render(artifacts: Artifacts, samples: int = 120, examples: int = 3) -> str:
    """The whole page as text: no file beside it, no network, nothing but the artifacts in it.

    ``samples``: how many probe texts to show at most, evenly over the domains.
    ``examples``: how many places (file:line) to show of each kind of rejected row.
    """
    accuracies = tables.only_accuracies(artifacts.results)
    return page.write(
        "report.html",
        kind="report",
        domains=artifacts.domains,
        said=summary.summarise(artifacts),
        setup=page.Setup(
            base_model=artifacts.base_model,
            parameters=artifacts.parameters,
            environment=artifacts.environment,
            git_commit=artifacts.git_commit,
            command=artifacts.run.get("command"),
            date=artifacts.run.get("began"),
            device=artifacts.training.get("device"),
            peak_memory=artifacts.training.get("peak_memory_bytes"),
            tokens=tables.trained_tokens(artifacts.history),
            baseline=summary.baseline_sentence(artifacts.models),
        ),
        figures=artifacts.figures,
        a=artifacts,
        losses=page.records(tables.only_losses(artifacts.results)),
        accuracies=page.records(accuracies),
        own_names=bool(len(accuracies)) and (accuracies["task"] != accuracies["domain"]).any(),
        drifts=page.records(tables.drift(artifacts.drift, artifacts.results)),
        own=tables.own_rows(artifacts.own_texts),
        between=tables.interpolation(artifacts.training.get("interpolation")),
        log=page.records(tables.round_log(artifacts.history)),
        ingest_rows=page.records(tables.ingest_table(artifacts.ingest or {})),
        places=tables.reject_examples(artifacts.ingest or {}, examples),
        trained=tables.trained_examples(artifacts.ingest or {}),
        texts=sample_rows(artifacts.samples, samples),
        stages=tables.by_stage(artifacts.timings),
        time=tables.time_spent(artifacts.timings),
        stopped=tables.stopped_improving(artifacts.history),
        changed=page.records(tables.some_changes(artifacts.changed, CHANGES)),
        answers=page.records(artifacts.answers if artifacts.answers is not None else tables.NONE),
    )


def sample_rows(samples: pd.DataFrame | None, limit: int) -> list[dict[str, Any]]:
    """Up to ``limit`` judged texts, evenly over the judged domains, in their order of sampling.

    Texts without a judgement count as a group of their own; their ``note`` says why. Where a second
    judge looked, a note says what it named, and texts the two differ about come first.
    """
    if samples is None or samples.empty:
        return []
    if "second" in samples:
        differ = samples["second"].notna() & (samples["second"] != samples["domain"])
        samples = samples.iloc[(~differ).argsort(kind="stable")]
    each = max(1, limit // samples["domain"].nunique(dropna=False))
    shown = samples.groupby("domain", sort=False, dropna=False).head(each).head(limit)
    return [
        {
            "domain": row["domain"] or "not judged",
            "confidence": row["confidence"],
            "text": row["text"],
            "notes": [
                *(n for n in dict.fromkeys((row["status"], row["flag"])) if n and n != "ok"),
                *([f"second judge: {row['second']}"] if row.get("second") else []),
            ],
        }
        for row in page.records(shown)
    ]
