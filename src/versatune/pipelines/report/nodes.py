"""Nodes of the report pipeline."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from versatune import tracking
from versatune.artifacts import to_jsonable
from versatune.data.config import Domains
from versatune.demo.base_model import BaseModelParams
from versatune.evaluation.objective import declared_by
from versatune.pipelines.report.params import ReportParams
from versatune.pipelines.report.steps import read_timings
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


def draw_results(results: pd.DataFrame, domains: Domains) -> tuple[go.Figure, go.Figure]:
    """Held-out loss and accuracy of each domain, before and after."""
    names = list(domains.active)
    result: tuple[go.Figure, go.Figure] = _logged(
        loss_before_after=figures.before_after(tables.only_losses(results), names, "loss"),
        accuracy_before_after=figures.before_after(
            tables.only_accuracies(results), names, "accuracy"
        ),
    )
    return result


def draw_training(
    mixture_history: pd.DataFrame,
    reference_losses: dict[str, Any],
    domains: Domains,
    train: TrainParams,
) -> tuple[go.Figure, go.Figure, go.Figure]:
    """Shares, held-out losses, learnable potential and forgetting over the rounds."""
    names = list(domains.active)
    result: tuple[go.Figure, go.Figure, go.Figure] = _logged(
        shares=figures.shares(mixture_history, names, train.unit),
        held_out_losses=figures.held_out_losses(mixture_history, names, reference_losses),
        potential_and_forgetting=figures.potential_and_forgetting(mixture_history, names),
    )
    return result


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
    return _logged(forecast_and_outcome=figures.forecast_and_outcome(table, names))[0]


def draw_data(
    ingest_report: dict[str, Any],
    knowledge_distribution: dict[str, Any],
    sample: dict[str, Any],
    domains: Domains,
    base_model: BaseModelParams,
) -> tuple[go.Figure, go.Figure]:
    """Rows left out at ingest, and the base model's shares beside those of the data."""
    names = list(domains.active)
    result: tuple[go.Figure, go.Figure] = _logged(
        rejects=figures.rejects(ingest_report, names),
        knowledge=figures.knowledge(
            knowledge_distribution,
            names,
            data_shares=summary.data_shares(ingest_report),
            known_shares=sample["shares"] if base_model.kind == "pretrain" else None,
        ),
    )
    return result


def write_report(
    results: pd.DataFrame,
    mixture_history: pd.DataFrame,
    initial_mixture: dict[str, Any],
    ingest_report: dict[str, Any],
    knowledge_distribution: dict[str, Any],
    judged_samples: pd.DataFrame,
    base_model: dict[str, Any],
    parameters: dict[str, Any],
    reference_losses: dict[str, Any],
    training_summary: dict[str, Any],
    evaluation: pd.DataFrame,
    changed_items: pd.DataFrame,
    answers: pd.DataFrame,
    forecast: dict[str, Any],
    drift: pd.DataFrame,
    own_texts_report: dict[str, Any],
    domains: Domains,
    train: TrainParams,
    params: ReportParams,
    **drawn: go.Figure,
) -> str:
    """The page as text; ``drawn`` are the figures by name."""
    declared = declared_by(train.objective, train.strategy, reference_losses)
    page = render(
        Artifacts(
            domains=list(domains.active),
            figures={name.removeprefix("figure_"): fig for name, fig in drawn.items()},
            results=results,
            history=mixture_history,
            ingest=ingest_report,
            knowledge=knowledge_distribution,
            samples=judged_samples,
            mixture=initial_mixture,
            base_model=base_model,
            parameters={k: v for k, v in to_jsonable(parameters).items() if k not in OTHERS},
            environment=configuration.environment(),
            git_commit=configuration.git_commit(),
            timings=read_timings(params.timings),
            run=timings.read(params.timings)[0],
            references=reference_losses,
            strategy=train.strategy,
            training=training_summary,
            models=tables.mean_losses(evaluation),
            changed=changed_items,
            answers=answers,
            declared=declared,
            forecast=forecast,
            made_for=train.fingerprint_fields(),
            drift=drift,
            own_texts=own_texts_report,
        ),
        samples=params.samples,
        examples=params.reject_examples,
    )
    tracking.log_text(page, "report.html")
    tracking.log_metrics(mean_metrics(results))
    tracking.set_tags({"mlflow.note.content": note(results, declared)})
    return page


def _logged(**drawn: go.Figure) -> Any:
    """Log the figures as artifacts of the run and hand them on in the order given."""
    for name, fig in drawn.items():
        tracking.log_figure(fig, f"figures/{name}", png)
    return tuple(drawn.values())
