"""The model's blocks through torch.compile: once, since all batches have the same shape.

A block (a decoder layer) is compiled, not the model: all blocks share one graph, and everything
that differs from step to step (how many tokens are supervised) stays outside. Layouts are tried and
held-out rows are measured in other shapes, so both run the blocks as they are.
"""

import logging
from typing import Any

logger = logging.getLogger(__name__)


def compile_blocks(model: Any, backend: str = "inductor") -> int:
    """Compile every block of ``model`` in place; returns how many there are.

    Blocks are what transformers never splits over devices. A model that names none is left as it
    is, with a warning.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    names = set(getattr(base, "_no_split_modules", None) or ())
    blocks = [module for module in base.modules() if type(module).__name__ in names]
    for block in blocks:
        block.compile(backend=backend)
    if not blocks:
        logger.warning("%s names no blocks to compile: it runs uncompiled.", type(base).__name__)
    return len(blocks)
