"""The steps of a run, as the report shows them."""

from pathlib import Path
from typing import Any

from versatune.pipelines.stages import STAGES, stage_of
from versatune.reporting import timings


def read_timings(path: Path) -> list[dict[str, Any]]:
    """The steps of :func:`versatune.reporting.timings.read`, stage by stage.

    Steps of pipelines that are no stage (a comparison) are left out. The report itself keeps
    nothing: what stands there for a step that is still at work is of an earlier page.
    """
    known = [
        {**step, "kept": 0.0} if stage_of(step["name"]) == "report" else step
        for step in timings.read(path)[1]
        if stage_of(step["name"]) in STAGES
    ]
    return sorted(known, key=lambda step: STAGES.index(stage_of(step["name"])))
