"""The evaluate pipeline: both models measured alike, then compared."""

from typing import Any

from kedro.pipeline import Pipeline, node

from versatune.pipelines.evaluate import nodes


def create_pipeline(**_: Any) -> Pipeline:
    """Base and tuned model -> ``evaluation``, ``evaluation_items``, ``forgetting``."""
    settings = ["tokenized", "params:domains", "params:evaluate"]
    return Pipeline(
        [
            node(
                nodes.evaluate_base,
                ["base_model", *settings],
                ["evaluation_base", "evaluation_base_items"],
                name="evaluate_base",
                tags=["evaluate"],
            ),
            node(
                nodes.evaluate_tuned,
                ["trained_model", *settings],
                ["evaluation_tuned", "evaluation_tuned_items"],
                name="evaluate_tuned",
                tags=["evaluate"],
            ),
            node(
                nodes.summarise,
                [
                    "evaluation_base",
                    "evaluation_base_items",
                    "evaluation_tuned",
                    "evaluation_tuned_items",
                ],
                ["evaluation", "evaluation_items", "forgetting"],
                name="summarise_evaluation",
                tags=["evaluate"],
            ),
        ]
    )
