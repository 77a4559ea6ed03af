"""The retrain pipeline: news -> data -> challenger -> comparison -> registry."""

from kedro.pipeline import Node, Pipeline

from versatune.pipelines import ingest
from versatune.pipelines.node_of import node_of
from versatune.pipelines.retrain import nodes, verdict_nodes
from versatune.pipelines.retrain.when_new import when_new


def create_pipeline(**_kwargs: object) -> Pipeline:
    """One retraining, from `sample_summary` and `base_model`; seconds when nothing is new.

    Rows are cleaned and tokenised by the nodes of ingest, into folders of their own.
    """
    data = Pipeline(
        ingest.create_pipeline().only_nodes("clean_domains", "tokenize_rows"),
        inputs={"sample_summary", "base_model"},
        outputs={"clean_data": "retrain_clean", "tokenized": "retrain_tokenized"},
        parameters={"params:domains", "params:ingest", "params:tokenize", "params:parallel"},
    )
    work = [*data.nodes, *_work()]
    look = node_of(
        nodes.look_for_news,
        [
            *("sample_summary", "base_model", "params:domains", "params:ingest"),
            *("params:tokenize", "params:train", "params:evaluate", "params:retrain"),
            *("retrain_runs", "retrain_knowledge"),
        ],
        "retrain_news",
    )
    choose = node_of(
        nodes.choose_models,
        ["retrain_news", "base_model", "params:retrain", "retrain_runs"],
        "retrain_models",
    )
    register = node_of(
        verdict_nodes.register_challenger,
        [
            *("retrain_news", "retrain_models", "retrain_tokenized", "retrain_challenger"),
            *("retrain_changes", "retrain_verdict"),
            *("params:retrain", "retrain_runs", "retrain_evaluations"),
        ],
        "retrain_outcome",
    )
    return Pipeline([look, choose, *map(when_new, work), register])


def _work() -> list[Node]:
    """The nodes that train a challenger, measure it and judge it."""
    return [
        node_of(
            nodes.compute_mixture,
            ["retrain_tokenized", "params:retrain", "params:train", "retrain_knowledge"],
            "retrain_mixture",
        ),
        node_of(
            nodes.train_challenger,
            [
                *("retrain_news", "retrain_models", "retrain_tokenized", "retrain_mixture"),
                *("params:train", "params:retrain"),
            ],
            "retrain_challengers",
        ),
        node_of(
            nodes.name_challenger, ["retrain_news", "retrain_challengers"], "retrain_challenger"
        ),
        node_of(
            verdict_nodes.evaluate_models,
            [
                *("retrain_models", "retrain_challenger", "retrain_tokenized"),
                *("params:domains", "params:evaluate", "params:retrain", "retrain_evaluations"),
            ],
            ["retrain_evaluation", "retrain_evaluation_items"],
        ),
        node_of(
            verdict_nodes.decide_promotion,
            ["retrain_evaluation_items", "params:train", "params:retrain"],
            ["retrain_changes", "retrain_verdict"],
        ),
    ]
