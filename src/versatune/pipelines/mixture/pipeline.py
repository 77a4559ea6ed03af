"""The mixture pipeline: own texts -> training rows; knowledge distribution -> shares; base model
-> reference losses."""

from kedro.pipeline import Pipeline

from versatune.pipelines.mixture import nodes
from versatune.pipelines.node_of import node_of


def create_pipeline(**_kwargs: object) -> Pipeline:
    """Measure the references and compute the shares training starts with."""
    return Pipeline(
        [
            node_of(
                nodes.add_own_rows,
                ["tokenized", "own_texts", "base_model", "params:domains"],
                "training_rows",
            ),
            node_of(
                nodes.reference_rows,
                ["training_rows", "base_model", "params:references"],
                "reference_rows",
            ),
            node_of(
                nodes.reference_runs,
                [
                    *("training_rows", "reference_rows", "base_model"),
                    *("params:references", "params:train", "params:parallel"),
                ],
                "reference_runs",
            ),
            node_of(
                nodes.reference_losses,
                [
                    *("training_rows", "reference_rows", "base_model"),
                    *("params:references", "params:train", "reference_runs"),
                ],
                "reference_losses",
            ),
            node_of(
                nodes.compute_mixture,
                ["knowledge_distribution", "training_rows", "params:mixture"],
                "initial_mixture",
            ),
        ]
    )
