"""The compare pipeline: runs planned, trained and evaluated, their tables, figures and page."""

from typing import Any

from kedro.pipeline import Pipeline

from versatune.pipelines.compare import nodes, page_nodes
from versatune.pipelines.node_of import node_of

FIGURES = [f"figure_comparison_{name}" for name in ("loss", "accuracy", "shares")]


def create_pipeline(**_: Any) -> Pipeline:
    """``comparison``, ``comparison_summary`` and the page. Which runs there are is data."""
    return Pipeline(
        [
            node_of(
                nodes.plan_runs,
                [
                    *("training_rows", "initial_mixture", "reference_losses"),
                    *("knowledge_distribution", "params:compare", "params:train"),
                ],
                "runs_planned",
            ),
            node_of(
                nodes.train_and_evaluate,
                [
                    *("runs_planned", "training_rows", "base_model", "params:domains"),
                    *("params:evaluate", "params:compare", "params:parallel", "evaluations"),
                ],
                "comparison_runs",
            ),
            node_of(
                nodes.collect_runs,
                ["runs_planned", "comparison_runs"],
                ["comparison", "comparison_history", "comparison_items"],
            ),
            node_of(
                nodes.compare,
                [
                    *("comparison", "comparison_items", "reference_losses"),
                    *("params:compare", "params:train"),
                ],
                "comparison_summary",
            ),
            node_of(
                page_nodes.draw_comparison,
                [
                    *("comparison", "comparison_history", "comparison_summary"),
                    *("params:domains", "params:compare"),
                ],
                FIGURES,
            ),
            node_of(
                page_nodes.write_comparison,
                {
                    **{n: n for n in ("comparison_summary", "base_model", "parameters", *FIGURES)},
                    "domains": "params:domains",
                    "params": "params:compare",
                    "train": "params:train",
                },
                "comparison_report",
            ),
        ]
    )
