"""Parameters of the retrain pipeline: the library's own, gathered."""

from versatune.data.config import CleanParams, Domains, TokenizeParams
from versatune.evaluation.config import EvaluateParams
from versatune.retraining.config import RetrainParams
from versatune.training.config import TrainParams

__all__ = [
    "CleanParams",
    "Domains",
    "EvaluateParams",
    "RetrainParams",
    "TokenizeParams",
    "TrainParams",
]
