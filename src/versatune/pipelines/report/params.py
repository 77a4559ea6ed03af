"""Parameters of the report."""

from pathlib import Path

from pydantic import Field

from versatune.params import Params
from versatune.reporting.requirements import RequireParams


class ReportParams(Params):
    """What the report shows. Top-level key ``report``."""

    timings: Path
    """The file with the seconds of each finished step; may be missing."""
    require: RequireParams = RequireParams()
    """What the trained model must reach; `kedro run` ends with exit code 2 when it does not."""
    samples: int = Field(default=120, ge=0)
    """How many sampled texts of the probe the page holds at most, evenly over the domains."""
    reject_examples: int = Field(default=3, ge=0)
    """How many places (file:line) the page names for each domain and reason of rejection."""
