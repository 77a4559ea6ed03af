"""The report: one self-contained HTML page from artifacts only."""

from typing import Any

import pandas as pd

from versatune.reporting import forecast as ahead
from versatune.reporting import page, summary, tables
from versatune.reporting.report_inputs import Artifacts

CHANGES = 3
"""Questions that became right, and that became wrong, shown of each domain."""


def render(artifacts: Artifacts, samples: int = 120, examples: int = 3) -> str:
    """The page as text: self-contained, without network, made only from the artifacts.

    ``samples``: how many probe texts to show at most, evenly over the domains.
    ``examples``: how many places (file:line) to show of each kind of rejected row.
    """
    accuracies = tables.only_accuracies(artifacts.results)
    losses = tables.only_losses(artifacts.results)
    between = tables.interpolation(artifacts.training_summary.get("interpolation"))
    went_back = between is not None and between["part"] < 1
    came = ahead.outcome(artifacts.forecast, artifacts.mixture_history, losses)
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
            device=artifacts.training_summary.get("device"),
            peak_memory=artifacts.training_summary.get("peak_memory_bytes"),
            tokens=tables.trained_tokens(artifacts.mixture_history),
            baseline=summary.baseline_sentence(artifacts.models),
        ),
        figures=artifacts.figures,
        a=artifacts,
        losses=page.records(losses),
        accuracies=page.records(accuracies),
        own_names=bool(len(accuracies)) and (accuracies["task"] != accuracies["domain"]).any(),
        apart=tables.apart(artifacts.results),
        drifts=page.records(tables.drift(artifacts.drift, artifacts.results)),
        own=tables.own_rows(artifacts.own_texts_report),
        between=between,
        log=page.records(tables.round_log(artifacts.mixture_history)),
        ingest_rows=page.records(tables.ingest_table(artifacts.ingest_report or {})),
        places=tables.reject_examples(artifacts.ingest_report or {}, examples),
        trained=tables.trained_examples(artifacts.ingest_report or {}),
        texts=sample_rows(artifacts.judged_samples, samples),
        stages=tables.by_stage(artifacts.timings),
        time=tables.time_spent(artifacts.timings),
        stopped=tables.stopped_improving(artifacts.mixture_history),
        changed=page.records(tables.some_changes(artifacts.changed_items, CHANGES)),
        forecast=None if artifacts.forecast is None else ahead.said(artifacts.forecast),
        stale=ahead.stale(artifacts.forecast, artifacts.made_for),
        gain_unit=ahead.unit(artifacts.forecast or {}),
        mixes=page.records(pd.DataFrame(ahead.strategy_rows(artifacts.forecast))),
        came=page.records(came),
        came_said=ahead.outcome_sentence(came, went_back),
        answers=page.records(artifacts.answers),
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
