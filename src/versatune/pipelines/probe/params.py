"""Parameters of the probe pipeline's nodes."""

from versatune.data.config import CleanParams, Domains
from versatune.probing.config import ProbeParams

__all__ = ["CleanParams", "Domains", "ProbeParams"]
