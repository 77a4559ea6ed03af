"""Nodes of the plan pipeline."""

import logging
from typing import Any

import plotly.graph_objects as go

from versatune import tracking
from versatune.artifacts import FolderRef
from versatune.data.config import Domains
from versatune.modeling.checkpoints import CheckpointRef
from versatune.pipelines.report.nodes import logged
from versatune.reporting import figures
from versatune.reporting import forecast as words
from versatune.training import base_losses as measured
from versatune.training.config import TrainParams
from versatune.training.reference_config import ReferenceParams
from versatune.work import Piece

logger = logging.getLogger(__name__)


def base_losses(
    tokenized: FolderRef, base_model: dict[str, Any], train: TrainParams, params: ReferenceParams
) -> Piece:
    """The base model's held-out losses, when no reference run begins with them."""
    base = CheckpointRef.from_entry(base_model)
    return measured.base_losses(tokenized, base, train, params)


def make_forecast(
    tokenized: FolderRef,
    base_model: dict[str, Any],
    base_losses: FolderRef,
    reference_losses: dict[str, Any],
    reference_runs: dict[str, FolderRef],
    initial_mixture: dict[str, Any],
    knowledge_distribution: dict[str, Any],
    references: ReferenceParams,
    train: TrainParams,
) -> dict[str, Any]:
    """The forecast of each domain's loss, of a mix's possible gain, and of the training's cost."""
    from versatune.training.plan import EarlierStages, plan

    known = EarlierStages(
        references=reference_losses,
        runs=reference_runs,
        base_losses=base_losses,
        initial=initial_mixture["weights"],
        detected={d: entry["share"] for d, entry in knowledge_distribution["domains"].items()},
    )
    made = plan(tokenized, CheckpointRef.from_entry(base_model), train, references, known)
    if made["headroom"] is not None:
        parts = {"gain": "headroom", "low": "headroom_low", "high": "headroom_high"}
        tracking.log_metrics({f"forecast/{parts[k]}": v for k, v in made["headroom"].items()})
    for line in words.lines(made):
        logger.info("%s", line)
    for warning in made["warnings"]:
        logger.warning("%s", warning)
    return made


def draw_forecast(forecast: dict[str, Any], domains: Domains) -> go.Figure:
    """The forecast as a figure."""
    return logged(forecast=figures.forecast(forecast, list(domains.active)))[0]
