"""The evaluate pipeline: every model measured alike, base and tuned compared."""

from typing import Any

from kedro.pipeline import Pipeline

from versatune.pipelines.evaluate import nodes
from versatune.pipelines.node_of import node_of

MODELS = ("base", "tuned", "others")
"""In the order of the tables."""


def create_pipeline(**_: Any) -> Pipeline:
    """Base, tuned and other models -> ``evaluation``, ``evaluation_items``, ``forgetting``."""
    settings = ["training_rows", "params:domains", "params:evaluate", "evaluations"]
    return Pipeline(
        [
            node_of(
                nodes.evaluate_base,
                ["base_model", *settings],
                ["evaluation_base", "evaluation_base_items", "evaluation_base_answers"],
            ),
            node_of(
                nodes.evaluate_tuned,
                ["trained_model", *settings],
                ["evaluation_tuned", "evaluation_tuned_items", "evaluation_tuned_answers"],
            ),
            node_of(
                nodes.evaluate_others,
                ["base_model", *settings],
                ["evaluation_others", "evaluation_others_items"],
            ),
            node_of(
                nodes.measure_drift,
                ["base_model", "trained_model", "own_texts", "params:evaluate", "evaluations"],
                "drift",
            ),
            node_of(
                nodes.summarise_evaluation,
                [f"evaluation_{model}{part}" for part in ("", "_items") for model in MODELS],
                ["evaluation", "evaluation_items", "forgetting"],
            ),
            node_of(
                nodes.collect_examples,
                [
                    "evaluation_base_items",
                    "evaluation_tuned_items",
                    "evaluation_base_answers",
                    "evaluation_tuned_answers",
                    "params:domains",
                ],
                ["changed_items", "answers"],
            ),
        ]
    )
