"""Scheduled retraining: what is new, a challenger, and whether it takes over."""

from versatune.pipelines.retrain.pipeline import create_pipeline

__all__ = ["create_pipeline"]
