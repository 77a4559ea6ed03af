"""Which pipelines there are."""

from kedro.framework.project import find_pipelines
from kedro.pipeline import Pipeline

STAGES = ("ingest", "probe", "mixture", "train", "evaluate", "report")
"""The stages of ``__default__``, in the order in which data flows."""


def register_pipelines() -> dict[str, Pipeline]:
    """Every pipeline by name; ``__default__`` joins the stages from ingest to report."""
    pipelines = find_pipelines(raise_errors=True)
    pipelines["__default__"] = sum(
        (pipelines[stage] for stage in STAGES if stage in pipelines), Pipeline([])
    )
    return pipelines
