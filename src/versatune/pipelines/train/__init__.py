"""Train the base model with a mixture that adapts."""

from versatune.pipelines.train.pipeline import create_pipeline

__all__ = ["create_pipeline"]
