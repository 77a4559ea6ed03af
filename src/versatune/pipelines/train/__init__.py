"""Train the base model while its mixture adapts."""

from versatune.pipelines.train.pipeline import create_pipeline

__all__ = ["create_pipeline"]
