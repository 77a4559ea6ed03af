"""lm-evaluation-harness with quiet logging, our bar, and no hub where configured so."""

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

from versatune.data import hub
from versatune.work.bars import Bar, options

LONG = "Running"
"""How the titles of the harness's long bars begin. The others are short."""


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


@contextlib.contextmanager
def named_bars(title: str) -> Iterator[None]:
    """Let the harness show a bar called ``title`` while the model answers."""
    import lm_eval.api.model
    import lm_eval.api.task
    import lm_eval.models.huggingface

    def bar(*args: Any, desc: str | None = None, disable: bool = False, **given: Any) -> Any:
        hidden = disable or not (desc or "").startswith(LONG)
        return Bar(*args, **{**given, **options(title, "answers", hidden=hidden)})

    modules: Any = (lm_eval.api.model, lm_eval.api.task, lm_eval.models.huggingface)
    before = [module.tqdm for module in modules]
    for module in modules:
        module.tqdm = bar
    try:
        yield
    finally:
        for module, its_own in zip(modules, before, strict=True):
            module.tqdm = its_own
