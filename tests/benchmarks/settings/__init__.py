"""Strategies by real training in settings that were declared before anything was tuned."""

from pathlib import Path

RESULTS = Path("docs/results")
"""Where the tables lie."""
