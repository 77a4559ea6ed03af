"""The picture of the data flow in docs/flow.svg, made from the pipelines themselves.

python -m tests.project.flow > docs/flow.svg
"""

import sys
from html import escape
from pathlib import Path

from kedro.framework.project import pipelines
from kedro.framework.startup import bootstrap_project
from kedro.pipeline import Pipeline

from versatune.pipeline_registry import STAGES

COLOURS = ("#3b6fb6", "#b65f3b", "#3b9a6d", "#8a4fb0", "#a88a1f", "#b03f66", "#4f7f8a")
BOX, LINE, LABELS = 120, 22, 15
"""Width of a stage's box, height of a data set's line, and what a line's column is wide."""


def flows(stages: dict[str, Pipeline]) -> list[tuple[str, str, list[str]]]:
    """Each data set that one stage makes and others read: its name, its maker, its readers."""
    found = []
    for maker, pipeline in stages.items():
        for name in sorted(pipeline.all_outputs()):
            readers = [
                stage
                for stage, other in stages.items()
                if stage != maker and name in other.inputs()
            ]
            if readers:
                found.append((name, maker, readers))
    return found


def svg(stages: dict[str, Pipeline]) -> str:
    """A line a data set, from the stage that makes it to the stages that read it."""
    edges = flows(stages)
    height, top, rows = {}, {}, 10
    for stage in stages:
        made = sum(stage == maker for _, maker, _ in edges)
        read = sum(stage in readers for _, _, readers in edges)
        height[stage] = max(LINE * max(made, 1), 13 * read) + 10
        top[stage] = rows
        rows += height[stage] + 16
    width = BOX + LABELS * (len(edges) + 2) + 200
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {rows}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{rows}" fill="#ffffff"/>',
    ]
    places, arrivals = dict.fromkeys(stages, 0), dict.fromkeys(stages, 0)
    colour = dict(zip(stages, COLOURS * len(stages), strict=False))
    for number, (name, maker, readers) in enumerate(edges):
        x = BOX + LABELS * (number + 1)
        y = top[maker] + 16 + LINE * places[maker]
        places[maker] += 1
        end = BOX + LABELS * (len(edges) + 1)
        line = f'stroke="{colour[maker]}" stroke-width="1.5" fill="none"'
        parts.append(f'<path d="M{BOX} {y} H{end}" {line} opacity="0.35"/>')
        parts.append(f'<text x="{end + 6}" y="{y + 4}" fill="#222222">{escape(name)}</text>')
        for reader in readers:
            arrivals[reader] += 1
            at = (
                top[reader]
                + 6
                + (height[reader] - 12)
                * arrivals[reader]
                / (1 + sum(reader in others for _, _, others in edges))
            )
            parts.append(f'<path d="M{x} {y} V{at:.1f} H{BOX + 5}" {line}/>')
            parts.append(f'<path d="M{BOX} {at:.1f} l7 -3.5 v7 z" fill="{colour[maker]}"/>')
        parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour[maker]}"/>')
    for stage in stages:
        parts.append(
            f'<rect x="0" y="{top[stage]}" width="{BOX}" height="{height[stage]}" rx="6" '
            f'fill="{colour[stage]}"/><text x="{BOX / 2}" y="{top[stage] + height[stage] / 2 + 4}" '
            f'fill="#ffffff" text-anchor="middle" font-weight="bold">{escape(stage)}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def picture(root: Path) -> str:
    """The picture of the default pipeline of the project in ``root``."""
    bootstrap_project(root)
    return svg({stage: pipelines[stage] for stage in STAGES})


if __name__ == "__main__":
    sys.stdout.write(picture(Path(__file__).parents[2]))
