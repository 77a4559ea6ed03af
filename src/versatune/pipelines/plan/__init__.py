"""The forecast of a training's result and cost, before it starts."""

from versatune.pipelines.plan.pipeline import create_pipeline

__all__ = ["create_pipeline"]
