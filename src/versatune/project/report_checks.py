"""Checks of the report's parameters against other blocks."""

from collections.abc import Iterator

from versatune.data.config import Domains
from versatune.pipelines.report.params import ReportParams
from versatune.project.blocks import Problem
from versatune.project.mix_checks import name_problems


def check_required(domains: Domains, report: ReportParams) -> Iterator[Problem]:
    """Bounds of `report.require` name existing domains."""
    for name in ("max_loss", "min_accuracy"):
        bounds = getattr(report.require, name)
        yield from name_problems(bounds, list(domains.active), ("report", "require", name))
