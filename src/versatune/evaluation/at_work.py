"""lm-evaluation-harness with quiet logging, and without the hub where it is configured so."""

import contextlib
import logging
import os
from collections.abc import Iterator

from versatune.data import hub


@contextlib.contextmanager
def at_work(offline: bool) -> Iterator[None]:
    """Within the block the harness logs only errors; ``offline``: the hub is not contacted."""
    before = os.environ.get("HF_HUB_OFFLINE")
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    chatter = logging.getLogger("lm_eval")
    level = chatter.level
    try:
        chatter.setLevel(logging.ERROR)
        with hub.offline(offline):
            yield
    finally:
        chatter.setLevel(level)
        if before is None:
            os.environ.pop("HF_HUB_OFFLINE", None)
        else:
            os.environ["HF_HUB_OFFLINE"] = before
