"""The stages of ``__default__``."""

STAGES = ("ingest", "probe", "mixture", "plan", "train", "evaluate", "report")
"""In the order in which data flows."""
