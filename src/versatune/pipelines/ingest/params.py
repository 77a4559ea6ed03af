"""Parameters of the ingest pipeline; the library's own, gathered."""

from versatune.data.config import CleanParams, Domains, TokenizeParams
from versatune.pipelines.ingest.base_params import BaseModelParams, SampleParams

__all__ = ["BaseModelParams", "CleanParams", "Domains", "SampleParams", "TokenizeParams"]
