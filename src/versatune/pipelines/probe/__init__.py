"""Detection of the base model's knowledge distribution."""

from versatune.pipelines.probe.pipeline import create_pipeline

__all__ = ["create_pipeline"]
