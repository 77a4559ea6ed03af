"""Parameters of the train pipeline: the library's own."""

from versatune.training.config import TrainParams

__all__ = ["TrainParams"]
