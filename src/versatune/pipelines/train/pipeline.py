"""The train pipeline."""

from typing import Any

from kedro.pipeline import Node, Pipeline

from versatune.pipelines.train.nodes import log_trained_model, read_history, train_model


def create_pipeline(after_forecast: bool = False, **_: Any) -> Pipeline:
    """From the tokenised store and the initial mixture to the trained model and its history.

    ``after_forecast``: training waits for the plan pipeline's forecast, which must be there then.
    """
    return Pipeline(
        [
            Node(
                train_model,
                [
                    "training_rows",
                    "base_model",
                    "initial_mixture",
                    "reference_losses",
                    "knowledge_distribution",
                    "params:train",
                    *(["forecast"] if after_forecast else []),
                ],
                "trained_model",
                name="train_model",
            ),
            Node(
                read_history,
                ["trained_model", "reference_losses", "params:train"],
                ["mixture_history", "training_summary"],
                name="read_history",
            ),
            Node(
                log_trained_model,
                ["trained_model", "base_model", "params:train", "params:tracking"],
                None,
                name="log_trained_model",
            ),
        ]
    )
