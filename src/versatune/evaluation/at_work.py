"""lm-evaluation-harness with quiet logging, and offline where the hub must not be asked."""

import contextlib
import logging
import os
from collections.abc import Iterator


@contextlib.contextmanager
def at_work(offline: bool) -> Iterator[None]:
    """Within the block the harness logs errors alone; ``offline``: the hub is not asked."""
    before = os.environ.get("HF_HUB_OFFLINE")
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    import datasets
    import huggingface_hub.constants as hub

    flags = (hub, "HF_HUB_OFFLINE"), (datasets.config, "HF_HUB_OFFLINE")
    kept = [getattr(module, name) for module, name in flags]
    chatter = logging.getLogger("lm_eval")
    level = chatter.level
    try:
        for module, name in flags:
            setattr(module, name, offline)
        chatter.setLevel(logging.ERROR)
        yield
    finally:
        chatter.setLevel(level)
        for (module, name), value in zip(flags, kept, strict=True):
            setattr(module, name, value)
        if before is None:
            os.environ.pop("HF_HUB_OFFLINE", None)
        else:
            os.environ["HF_HUB_OFFLINE"] = before
