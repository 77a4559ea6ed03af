"""The evaluate pipeline."""

from versatune.pipelines.evaluate.pipeline import create_pipeline

__all__ = ["create_pipeline"]
