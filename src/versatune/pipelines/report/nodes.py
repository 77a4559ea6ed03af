"""Nodes of the report pipeline."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from versatune import tracking
from versatune.artifacts import to_jsonable
from versatune.data.config import Domains
from versatune.demo.base_model import BaseModelParams
from versatune.evaluation.objective import declared_by
from versatune.pipelines.report.params import ReportParams
from versatune.pipelines.stages import STAGES, stage_of
from versatune.reporting import configuration, figures, summary, tables, timings
from versatune.reporting import forecast as ahead
from versatune.reporting.closing import mean_metrics, note
from versatune.reporting.png import png
from versatune.reporting.report import render
from versatune.reporting.report_inputs import Artifacts
from versatune.training.config import TrainParams

OTHERS = ("compare", "retrain")
"""Blocks of parameters that no stage of the report's run uses."""


def tabulate_results(evaluation: pd.DataFrame, forgetting: pd.DataFrame) -> pd.DataFrame:
    """Base and tuned model side by side: held-out losses first, then accuracies."""
    return tables.results(evaluation, forgetting)


def draw_results(results: pd.DataFrame, domains: Domains) -> tuple[go.Figure, ...]:
    """Held-out loss and accuracy of each domain, before and after."""
    names = list(domains.active)
    return logged(
        loss_before_after=figures.before_after(tables.only_losses(results), names, "loss"),
        accuracy_before_after=figures.before_after(
            tables.only_accuracies(results), names, "accuracy"
        ),
    )


def draw_training(
    mixture_history: pd.DataFrame,
    reference_losses: dict[str, Any],
    domains: Domains,
    train: TrainParams,
) -> tuple[go.Figure, ...]:
    """Shares, held-out losses, learnable potential and forgetting over the rounds."""
    names = list(domains.active)
    return logged(
        shares=figures.shares(mixture_history, names, train.unit),
        held_out_losses=figures.held_out_losses(mixture_history, names, reference_losses),
        potential_and_forgetting=figures.potential_and_forgetting(mixture_history, names),
    )


def draw_outcome(
    forecast: dict[str, Any],
    mixture_history: pd.DataFrame,
    results: pd.DataFrame,
    domains: Domains,
) -> go.Figure:
    """The trained strategy's forecast beside the outcome."""
    table = ahead.outcome(forecast, mixture_history, tables.only_losses(results))
    if len(table):
        tracking.log_metrics({"forecast/outcomes_inside": float(table["inside"].mean())})
    names = list(domains.active)
    return logged(forecast_and_outcome=figures.forecast_and_outcome(table, names))[0]


def draw_data(
    ingest_report: dict[str, Any],
    knowledge_distribution: dict[str, Any],
    sample: dict[str, Any],
    domains: Domains,
    base_model: BaseModelParams,
) -> tuple[go.Figure, ...]:
    """Rows left out at ingest, and the base model's shares beside those of the data."""
    names = list(domains.active)
    return logged(
        rejects=figures.rejects(ingest_report, names),
        knowledge=figures.knowledge(
            knowledge_distribution,
            names,
            data_shares=summary.data_shares(ingest_report),
            known_shares=sample["shares"] if base_model.kind == "pretrain" else None,
        ),
    )


def write_report(
    results: pd.DataFrame,
    evaluation: pd.DataFrame,
    reference_losses: dict[str, Any],
    parameters: dict[str, Any],
    domains: Domains,
    train: TrainParams,
    params: ReportParams,
    **shown: Any,
) -> str:
    """The page as text; ``shown`` are the figures and its other entries."""
    declared = declared_by(train.objective, train.strategy, reference_losses)
    run, steps = timings.read(params.timings)
    drawn = {name: shown.pop(name) for name in [*shown] if name.startswith("figure_")}
    page = render(
        Artifacts(
            domains=list(domains.active),
            figures={name.removeprefix("figure_"): fig for name, fig in drawn.items()},
            results=results,
            parameters={k: v for k, v in to_jsonable(parameters).items() if k not in OTHERS},
            environment=configuration.environment(),
            git_commit=configuration.git_commit(),
            timings=in_stages(steps),
            run=run,
            reference_losses=reference_losses,
            strategy=train.strategy,
            models=tables.mean_losses(evaluation),
            declared=declared,
            made_for=train.fingerprint_fields(),
            **shown,
        ),
        samples=params.samples,
        examples=params.reject_examples,
    )
    tracking.log_text(page, "report.html")
    tracking.log_metrics(mean_metrics(results))
    tracking.set_tags({"mlflow.note.content": note(results, declared)})
    return page


def in_stages(steps: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The steps of :func:`versatune.reporting.timings.read`, stage by stage.

    Steps of pipelines that are no stage (a comparison) are left out. The report itself keeps
    nothing: what stands there for a step that is still at work is of an earlier page.
    """
    known = [
        {**step, "kept": 0.0} if stage_of(step["name"]) == "report" else step
        for step in steps
        if stage_of(step["name"]) in STAGES
    ]
    return sorted(known, key=lambda step: STAGES.index(stage_of(step["name"])))


def logged(**drawn: go.Figure) -> tuple[go.Figure, ...]:
    """Log the figures as artifacts of the run and hand them on in the order given."""
    for name, fig in drawn.items():
        tracking.log_figure(fig, f"figures/{name}", png)
    return tuple(drawn.values())
