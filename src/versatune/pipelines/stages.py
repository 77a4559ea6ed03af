"""The stages of ``__default__``."""

STAGES = ("ingest", "probe", "mixture", "plan", "train", "evaluate", "report")
"""In the order in which data flows."""

BOXES = {"figures": "report", "reporting": "report"}
"""The stage of each box that kedro-viz shows under another name: between these two lie the figures,
and the file is the report."""


def stage_of(node: str) -> str:
    """The stage of a node by its name, ``box.node``."""
    box = node.partition(".")[0]
    return BOXES.get(box, box)
