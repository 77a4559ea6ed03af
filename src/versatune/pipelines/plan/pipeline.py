"""The plan pipeline: references and shares -> the forecast and its figure."""

from kedro.pipeline import Pipeline

from versatune.pipelines.node_of import node_of
from versatune.pipelines.plan import nodes


def create_pipeline(**_kwargs: object) -> Pipeline:
    """Forecast the training that the parameters describe."""
    return Pipeline(
        [
            node_of(
                nodes.base_losses,
                ["training_rows", "base_model", "params:train", "params:references"],
                "base_losses",
            ),
            node_of(
                nodes.make_forecast,
                [
                    *("training_rows", "base_model", "base_losses", "reference_losses"),
                    *("reference_runs", "initial_mixture", "knowledge_distribution"),
                    *("params:references", "params:train"),
                ],
                "forecast",
            ),
            node_of(nodes.draw_forecast, ["forecast", "params:domains"], "figure_forecast"),
        ]
    )
