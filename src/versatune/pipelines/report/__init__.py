"""Figures and the report, from artifacts only."""

from versatune.pipelines.report.pipeline import create_pipeline

__all__ = ["create_pipeline"]
