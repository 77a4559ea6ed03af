"""Parameters of the probe pipeline's nodes."""

from versatune.data.config import Domains
from versatune.probing.config import ProbeParams

__all__ = ["Domains", "ProbeParams"]
