"""The report pipeline: artifacts -> figures -> one page."""

from kedro.pipeline import Pipeline

from versatune.pipelines.node_of import node_of
from versatune.pipelines.report import nodes

FIGURES = (
    *("loss_before_after", "accuracy_before_after"),
    *("shares", "held_out_losses", "potential_and_forgetting"),
    *("rejects", "knowledge", "forecast_and_outcome"),
)
"""Names of the figures that are drawn here; their catalog entries are these with ``figure_``
before."""


def create_pipeline(**_kwargs: object) -> Pipeline:
    """Draw every figure, then write the page that holds them."""
    figure = {name: f"figure_{name}" for name in FIGURES}
    return Pipeline(
        [
            node_of(nodes.tabulate_results, ["evaluation", "forgetting"], "results"),
            node_of(
                nodes.draw_results,
                ["results", "params:domains"],
                [figure["loss_before_after"], figure["accuracy_before_after"]],
            ),
            node_of(
                nodes.draw_training,
                ["mixture_history", "reference_losses", "params:domains", "params:train"],
                [figure["shares"], figure["held_out_losses"], figure["potential_and_forgetting"]],
            ),
            node_of(
                nodes.draw_data,
                [
                    "ingest_report",
                    "knowledge_distribution",
                    "sample_summary",
                    "params:domains",
                    "params:base_model",
                ],
                [figure["rejects"], figure["knowledge"]],
            ),
            node_of(
                nodes.draw_outcome,
                ["forecast", "mixture_history", "results", "params:domains"],
                figure["forecast_and_outcome"],
            ),
            node_of(
                nodes.write_report,
                {
                    **{name: name for name in _TABLES},
                    "domains": "params:domains",
                    "train": "params:train",
                    "params": "params:report",
                    **{name: name for name in (*figure.values(), "figure_forecast")},
                },
                "report",
            ),
        ]
    )


_TABLES = (
    *("results", "mixture_history", "initial_mixture", "ingest_report"),
    *("knowledge_distribution", "judged_samples", "base_model", "parameters"),
    *("reference_losses", "training_summary", "evaluation", "changed_items", "answers"),
    *("forecast", "drift", "own_texts_report"),
)
