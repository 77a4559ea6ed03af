"""stub"""

from typing import Any

from versatune.sample.config import SampleParams


def build(params: SampleParams) -> dict[str, Any]:
    """Returns folder, fingerprint, corpus, instructions, evaluation, shares, counts."""
    raise NotImplementedError
