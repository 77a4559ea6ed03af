"""Parameters of the nodes that make the sample and the base model."""

from versatune.modeling.base import BaseModelParams
from versatune.sample.config import SampleParams

__all__ = ["BaseModelParams", "SampleParams"]
