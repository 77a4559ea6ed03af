"""Parameters of the probe pipeline's nodes."""

from versatune.data.config import CleanParams, Domains
from versatune.probing.config import ProbeParams

__all__ = ["CleanParams", "Domains", "ProbeParams", "descriptions"]


def descriptions(domains: Domains) -> dict[str, str]:
    """What each domain is about, as judges read it."""
    return {name: config.description for name, config in domains.active.items()}
