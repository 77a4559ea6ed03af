"""Parameters of the nodes that make the sample and the base model."""

from versatune.demo.config import SampleParams
from versatune.modeling.base_model import BaseModelParams

__all__ = ["BaseModelParams", "SampleParams"]
