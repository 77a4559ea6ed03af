"""The inputs of the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from versatune.evaluation.objective import DeclaredObjective
from versatune.mixing.config import StrategyParams


@dataclass(frozen=True)
class Artifacts:
    """The inputs of the page: entries of the catalog by their names there, and what else it says.
    All except ``domains`` may be missing; the page then says so."""

    domains: Sequence[str]
    """Their order decides their colours."""
    figures: Mapping[str, go.Figure] = field(default_factory=dict)
    """By the names used in the template: ``loss_before_after``, ``shares`` and so on."""
    results: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["metric"]))
    """From :func:`versatune.reporting.tables.results`."""
    mixture_history: pd.DataFrame | None = None
    ingest_report: Mapping[str, Any] | None = None
    knowledge_distribution: Mapping[str, Any] | None = None
    judged_samples: pd.DataFrame | None = None
    initial_mixture: Mapping[str, Any] | None = None
    base_model: Mapping[str, Any] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    git_commit: str | None = None
    timings: Sequence[Mapping[str, Any]] = ()
    """``name`` (``stage.step``), ``seconds`` in this run and ``kept`` seconds (of an earlier run,
    whose work this one kept) of each step, in the order to be shown."""
    reference_losses: Mapping[str, Any] | None = None
    strategy: StrategyParams | None = None
    """The one that trained."""
    training_summary: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)
    """``began`` and ``command`` of the run."""
    models: pd.DataFrame | None = None
    """Mean held-out loss by model, where others than base and tuned were measured."""
    changed_items: pd.DataFrame | None = None
    answers: pd.DataFrame | None = None
    declared: DeclaredObjective = field(default_factory=DeclaredObjective)
    """What training was to minimise."""
    forecast: Mapping[str, Any] | None = None
    made_for: Mapping[str, Any] = field(default_factory=dict)
    """The parameters of training that decide its result, to see whether the forecast is of them."""
    drift: pd.DataFrame | None = None
    own_texts_report: Mapping[str, Any] = field(default_factory=dict)
