"""The ingest pipeline: facts and files -> sample, base model, cleaned rows, tokenised sets."""

from kedro.pipeline import Node, Pipeline

from versatune.pipelines.ingest import base_nodes, nodes


def create_pipeline(**_kwargs: object) -> Pipeline:
    """Make the embedded sample and the base model, then clean and tokenise every domain."""
    return Pipeline(
        [
            Node(base_nodes.build_sample, "params:sample", "sample_files", name="build_sample"),
            Node(base_nodes.describe_sample, "sample_files", "sample", name="describe_sample"),
            Node(
                base_nodes.make_base_model,
                ["params:base_model", "sample"],
                "base_model",
                name="make_base_model",
            ),
            Node(
                nodes.clean_domains,
                ["params:domains", "params:ingest", "sample"],
                "clean_data",
                name="clean_domains",
            ),
            Node(
                nodes.tokenize_rows,
                ["clean_data", "base_model", "params:tokenize", "params:parallel"],
                "tokenized",
                name="tokenize_rows",
            ),
            Node(
                nodes.report_ingest,
                ["clean_data", "tokenized"],
                "ingest_report",
                name="report_ingest",
            ),
        ]
    )
