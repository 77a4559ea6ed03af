"""What a training is forecast to reach and to take, before it is begun."""

from versatune.pipelines.plan.pipeline import create_pipeline

__all__ = ["create_pipeline"]
