"""The compare pipeline: runs planned, trained and evaluated, their tables, figures and page."""

from typing import Any

from kedro.pipeline import Node, Pipeline

from versatune.pipelines.compare import nodes, page_nodes

FIGURES = [f"figure_comparison_{name}" for name in ("loss", "accuracy", "shares")]


def create_pipeline(**_: Any) -> Pipeline:
    """``comparison``, ``comparison_summary`` and the page. Which runs there are is data."""
    return Pipeline(
        [
            Node(
                nodes.plan_runs,
                [
                    *("training_rows", "initial_mixture", "reference_losses"),
                    *("knowledge_distribution", "params:compare", "params:train"),
                ],
                "runs_planned",
                name="plan_runs",
            ),
            Node(
                nodes.train_and_evaluate,
                [
                    *("runs_planned", "training_rows", "base_model", "params:domains"),
                    *("params:evaluate", "params:compare", "params:parallel", "evaluations"),
                ],
                "comparison_runs",
                name="train_and_evaluate",
            ),
            Node(
                nodes.collect_runs,
                ["runs_planned", "comparison_runs"],
                ["comparison", "comparison_history", "comparison_items"],
                name="collect_runs",
            ),
            Node(
                nodes.compare,
                [
                    *("comparison", "comparison_items", "reference_losses"),
                    *("params:compare", "params:train"),
                ],
                "comparison_summary",
                name="compare",
            ),
            Node(
                page_nodes.draw_comparison,
                [
                    *("comparison", "comparison_history", "comparison_summary"),
                    *("params:domains", "params:compare"),
                ],
                FIGURES,
                name="draw_comparison",
            ),
            Node(
                page_nodes.write_comparison,
                {
                    **{n: n for n in ("comparison_summary", "base_model", "parameters", *FIGURES)},
                    "domains": "params:domains",
                    "params": "params:compare",
                    "train": "params:train",
                },
                "comparison_report",
                name="write_comparison",
            ),
        ]
    )
