"""Raw files of every domain to tokenised sets."""

from versatune.pipelines.ingest.pipeline import create_pipeline

__all__ = ["create_pipeline"]
