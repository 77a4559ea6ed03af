"""The harness's progress bars: replaced by ours for the model's work, hidden for the rest."""

import contextlib
from collections.abc import Iterator
from typing import Any

from versatune.work.bars import Bar, options

LONG = "Running"
"""Prefixes of the titles of the harness's long bars. The others are short."""


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
