"""The plan pipeline: references and shares -> the forecast and its figure."""

from kedro.pipeline import Node, Pipeline

from versatune.pipelines.plan import nodes


def create_pipeline(**_kwargs: object) -> Pipeline:
    """Forecast the training that the parameters describe."""
    return Pipeline(
        [
            Node(
                nodes.base_losses,
                ["training_rows", "base_model", "params:train", "params:references"],
                "base_losses",
                name="base_losses",
            ),
            Node(
                nodes.make_forecast,
                [
                    *("training_rows", "base_model", "base_losses", "reference_losses"),
                    *("reference_runs", "initial_mixture", "knowledge_distribution"),
                    *("params:references", "params:train"),
                ],
                "forecast",
                name="make_forecast",
            ),
            Node(
                nodes.draw_forecast,
                ["forecast", "params:domains"],
                "figure_forecast",
                name="draw_forecast",
            ),
        ]
    )
