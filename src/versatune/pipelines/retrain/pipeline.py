"""The retrain pipeline: news -> data -> challenger -> comparison -> registry."""

from kedro.pipeline import Node, Pipeline

from versatune.pipelines.retrain import data_nodes, nodes


def create_pipeline(**_kwargs: object) -> Pipeline:
    """One night of retraining, from `sample` and `base_model`; seconds when nothing is new."""
    return Pipeline(
        [
            Node(
                nodes.look_for_news,
                [
                    *("sample", "base_model", "params:domains", "params:ingest"),
                    *("params:tokenize", "params:train", "params:evaluate", "params:retrain"),
                    *("retrain_runs", "retrain_knowledge"),
                ],
                "retrain_news",
                name="look_for_news",
            ),
            Node(
                nodes.choose_models,
                ["retrain_news", "base_model", "params:retrain", "retrain_runs"],
                "retrain_models",
                name="choose_models",
            ),
            Node(
                data_nodes.clean_domains,
                ["retrain_news", "params:domains", "params:ingest"],
                "retrain_clean",
                name="clean_domains",
            ),
            Node(
                data_nodes.tokenize_rows,
                ["retrain_news", "retrain_clean", "base_model", "params:tokenize"],
                "retrain_tokenized",
                name="tokenize_rows",
            ),
            Node(
                data_nodes.note_data,
                ["retrain_news", "retrain_tokenized", "retrain_runs"],
                "retrain_data",
                name="note_data",
            ),
            Node(
                nodes.train_challenger,
                [
                    *("retrain_news", "retrain_models", "retrain_data"),
                    *("params:train", "params:retrain", "retrain_runs", "retrain_knowledge"),
                ],
                "retrain_challenger",
                name="train_challenger",
            ),
            Node(
                nodes.measure,
                [
                    *("retrain_news", "retrain_models", "retrain_data", "retrain_challenger"),
                    *("params:domains", "params:evaluate", "params:retrain", "retrain_runs"),
                ],
                "retrain_changes",
                name="measure_champion_and_challenger",
            ),
            Node(
                nodes.decide,
                [
                    *("retrain_news", "retrain_changes"),
                    *("params:train", "params:retrain", "retrain_runs"),
                ],
                "retrain_verdict",
                name="decide_promotion",
            ),
            Node(
                nodes.register_challenger,
                [
                    *("retrain_news", "retrain_models", "retrain_data", "retrain_challenger"),
                    *("retrain_verdict", "params:retrain", "retrain_runs"),
                ],
                "retrain_outcome",
                name="register_challenger",
            ),
        ]
    )
