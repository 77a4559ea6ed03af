"""Scheduled retraining: detect new data, train a challenger, decide on its promotion."""

from versatune.pipelines.retrain.pipeline import create_pipeline

__all__ = ["create_pipeline"]
