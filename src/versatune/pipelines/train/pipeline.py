"""The train pipeline."""

from typing import Any

from kedro.pipeline import Pipeline

from versatune.pipelines.node_of import node_of
from versatune.pipelines.train.nodes import log_trained_model, read_history, train_model


def create_pipeline(after_forecast: bool = False, **_: Any) -> Pipeline:
    """From the tokenised store and the initial mixture to the trained model and its history.

    ``after_forecast``: training waits for the plan pipeline's forecast, which must be there then.
    """
    return Pipeline(
        [
            node_of(
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
            ),
            node_of(
                read_history,
                ["trained_model", "reference_losses", "params:train"],
                ["mixture_history", "training_summary"],
            ),
            node_of(
                log_trained_model,
                ["trained_model", "base_model", "params:train", "params:tracking"],
                None,
            ),
        ]
    )
