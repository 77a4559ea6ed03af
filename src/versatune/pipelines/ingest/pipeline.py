"""The ingest pipeline: facts and files -> sample, base model, cleaned rows, tokenised sets."""

from kedro.pipeline import Pipeline

from versatune.pipelines.ingest import nodes
from versatune.pipelines.node_of import node_of


def create_pipeline(**_kwargs: object) -> Pipeline:
    """Make the embedded sample and the base model, then clean and tokenise every domain."""
    return Pipeline(
        [
            node_of(nodes.build_sample, "params:sample", "sample_files"),
            node_of(nodes.describe_sample, "sample_files", "sample_summary"),
            node_of(nodes.make_base_model, ["params:base_model", "sample_summary"], "base_model"),
            node_of(
                nodes.clean_domains,
                ["params:domains", "params:ingest", "sample_summary"],
                "clean_data",
            ),
            node_of(
                nodes.tokenize_rows,
                ["clean_data", "base_model", "params:tokenize", "params:parallel"],
                "tokenized",
            ),
            node_of(nodes.report_ingest, ["clean_data", "tokenized"], "ingest_report"),
        ]
    )
