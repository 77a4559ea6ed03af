"""Nodes that show a comparison: its figures and its page."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from versatune import tracking
from versatune.artifacts import to_jsonable
from versatune.comparing.config import CompareParams
from versatune.data.config import Domains
from versatune.evaluation.comparison import ACCURACY
from versatune.evaluation.objective import DeclaredObjective
from versatune.evaluation.results import LOSS
from versatune.pipelines.report.nodes import logged
from versatune.reporting import comparison_page as page
from versatune.reporting import configuration, figures
from versatune.reporting.page import Setup
from versatune.training.config import TrainParams

OTHERS = ("report", "retrain")
"""Blocks of parameters that a comparison does not use."""


def draw_comparison(
    comparison: pd.DataFrame,
    comparison_history: pd.DataFrame,
    comparison_summary: pd.DataFrame,
    domains: Domains,
    params: CompareParams,
) -> tuple[go.Figure, ...]:
    """Loss and accuracy against the baseline, and the shares over the rounds."""
    names = list(domains.active)
    loss, accuracy = (
        figures.differences(comparison, names, params.baseline, metric, comparison_summary)
        for metric in (LOSS, ACCURACY)
    )
    return logged(
        comparison_loss=loss,
        comparison_accuracy=accuracy,
        comparison_shares=figures.shares_by_strategy(comparison_history, names),
    )


def write_comparison(
    comparison_summary: pd.DataFrame,
    base_model: dict[str, Any],
    parameters: dict[str, Any],
    domains: Domains,
    params: CompareParams,
    train: TrainParams,
    **drawn: go.Figure,
) -> str:
    """The page of the comparison as text; ``drawn`` are the figures by name."""
    each = train.changed(params.train)
    text = page.render(
        page.Compared(
            domains=list(domains.active),
            summary=comparison_summary,
            baseline=params.baseline,
            target=params.target,
            n_seeds=len(params.seeds),
            other_bases=list(params.bases),
            declared=DeclaredObjective(each.objective),
            budget=f"{each.steps.words} each",
            setup=Setup(
                base_model=base_model,
                parameters={k: v for k, v in to_jsonable(parameters).items() if k not in OTHERS},
                environment=configuration.environment(),
                git_commit=configuration.git_commit(),
                command=configuration.command(),
            ),
            figures={name.removeprefix("figure_"): fig for name, fig in drawn.items()},
        )
    )
    tracking.log_text(text, "comparison.html")
    return text
