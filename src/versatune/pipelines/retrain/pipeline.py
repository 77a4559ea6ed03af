"""The retrain pipeline: news -> data -> challenger -> comparison -> registry."""

from kedro.pipeline import Node, Pipeline

from versatune.pipelines import ingest
from versatune.pipelines.retrain import nodes, verdict_nodes
from versatune.pipelines.retrain.when_new import when_new


def create_pipeline(**_kwargs: object) -> Pipeline:
    """One retraining, from `sample` and `base_model`; seconds when nothing is new.

    Rows are cleaned and tokenised by the nodes of ingest, into folders of their own.
    """
    data = Pipeline(
        ingest.create_pipeline().only_nodes("clean_domains", "tokenize_rows"),
        inputs={"sample", "base_model"},
        outputs={"clean_data": "retrain_clean", "tokenized": "retrain_tokenized"},
        parameters={"params:domains", "params:ingest", "params:tokenize", "params:parallel"},
    )
    work = [*data.nodes, *_work()]
    look = Node(
        nodes.look_for_news,
        [
            *("sample", "base_model", "params:domains", "params:ingest"),
            *("params:tokenize", "params:train", "params:evaluate", "params:retrain"),
            *("retrain_runs", "retrain_knowledge"),
        ],
        "retrain_news",
        name="look_for_news",
    )
    choose = Node(
        nodes.choose_models,
        ["retrain_news", "base_model", "params:retrain", "retrain_runs"],
        "retrain_models",
        name="choose_models",
    )
    register = Node(
        verdict_nodes.register_challenger,
        [
            *("retrain_news", "retrain_models", "retrain_tokenized", "retrain_challenger"),
            *("retrain_changes", "retrain_verdict"),
            *("params:retrain", "retrain_runs", "retrain_evaluations"),
        ],
        "retrain_outcome",
        name="register_challenger",
    )
    return Pipeline([look, choose, *map(when_new, work), register])


def _work() -> list[Node]:
    """The nodes that read, clean and tokenise a retraining's data."""
    return [
        Node(
            nodes.compute_mixture,
            ["retrain_tokenized", "params:retrain", "params:train", "retrain_knowledge"],
            "retrain_mixture",
            name="compute_mixture",
        ),
        Node(
            nodes.train_challenger,
            [
                *("retrain_news", "retrain_models", "retrain_tokenized", "retrain_mixture"),
                *("params:train", "params:retrain"),
            ],
            "retrain_challengers",
            name="train_challenger",
        ),
        Node(
            nodes.name_challenger,
            ["retrain_news", "retrain_challengers"],
            "retrain_challenger",
            name="name_challenger",
        ),
        Node(
            verdict_nodes.evaluate_models,
            [
                *("retrain_models", "retrain_challenger", "retrain_tokenized"),
                *("params:domains", "params:evaluate", "params:retrain", "retrain_evaluations"),
            ],
            ["retrain_evaluation", "retrain_evaluation_items"],
            name="evaluate_models",
        ),
        Node(
            verdict_nodes.decide,
            ["retrain_evaluation_items", "params:train", "params:retrain"],
            ["retrain_changes", "retrain_verdict"],
            name="decide_promotion",
        ),
    ]
