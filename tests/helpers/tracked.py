"""A run that the block tracks to."""

import contextlib
from collections.abc import Iterator

from versatune import tracking
from versatune.tracking.spool import Spool


@contextlib.contextmanager
def tracked(run_id: str, spool: Spool, error: Exception | None = None) -> Iterator[None]:
    """Send what the block tracks to this run, as the hooks do."""
    tracking.begin(run_id, spool, error)
    try:
        yield
    finally:
        tracking.end()
