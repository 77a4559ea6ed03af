"""Parameters of the evaluate pipeline. Top-level key ``evaluate``."""

from versatune.evaluation.config import CodeParams, EvaluateParams, HarnessParams, SandboxLimits

__all__ = ["CodeParams", "EvaluateParams", "HarnessParams", "SandboxLimits"]
