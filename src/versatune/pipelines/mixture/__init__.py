"""Reference losses, and the shares training starts with."""

from versatune.pipelines.mixture.pipeline import create_pipeline

__all__ = ["create_pipeline"]
