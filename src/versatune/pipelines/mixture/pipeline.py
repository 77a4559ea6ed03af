"""The mixture pipeline: own texts -> training rows; knowledge distribution -> shares; base model
-> reference losses."""

from kedro.pipeline import Node, Pipeline

from versatune.pipelines.mixture import nodes


def create_pipeline(**_kwargs: object) -> Pipeline:
    """Measure the references and compute the shares training starts with."""
    return Pipeline(
        [
            Node(
                nodes.add_own_rows,
                ["tokenized", "own_texts", "base_model", "params:domains"],
                "training_rows",
                name="add_own_rows",
            ),
            Node(
                nodes.reference_rows,
                ["training_rows", "base_model", "params:references"],
                "reference_rows",
                name="reference_rows",
            ),
            Node(
                nodes.reference_runs,
                [
                    *("training_rows", "reference_rows", "base_model"),
                    *("params:references", "params:train", "params:parallel"),
                ],
                "reference_runs",
                name="reference_runs",
            ),
            Node(
                nodes.reference_losses,
                [
                    *("training_rows", "reference_rows", "base_model"),
                    *("params:references", "params:train", "reference_runs"),
                ],
                "reference_losses",
                name="reference_losses",
            ),
            Node(
                nodes.compute_mixture,
                ["knowledge_distribution", "training_rows", "params:mixture"],
                "initial_mixture",
                name="compute_mixture",
            ),
        ]
    )
