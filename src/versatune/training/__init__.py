"""Training in rounds: transformers' Trainer, with a mixture that changes between rounds."""

from versatune.training.api import TrainResult, train
from versatune.training.config import LauncherParams, LoraParams, TrainParams
from versatune.training.reference_config import ReferenceParams

__all__ = [
    "LauncherParams",
    "LoraParams",
    "ReferenceParams",
    "TrainParams",
    "TrainResult",
    "train",
]
