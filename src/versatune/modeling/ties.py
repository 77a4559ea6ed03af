"""Layers that share a weight, and adapters on them.

An adapter of a layer changes what that layer returns. Merged into a weight that another layer has
too, as the head has the embeddings' in many models, it would change both: another model than the
trained one. The layer gets its own weight first.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

from versatune.data.lengths import text_config

logger = logging.getLogger(__name__)

_ADVICE = (
    r"Model (has|with) `tie_word_embeddings=True`",
    r"Setting `save_embedding_layers` to `True`",
    r"`is_gradient_checkpointing` is deprecated",
)


def shared_layers(adapted: Any) -> list[tuple[Any, list[str]]]:
    """Of a model with adapters, each adapted layer (the layer below the adapter) whose weight is
    another layer's too, and the names the weight goes by."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    base = adapted.get_base_model()
    names: dict[int, list[str]] = {}
    for name, weight in base.named_parameters(remove_duplicate=False):
        plain = name.removesuffix(".weight").removesuffix(".base_layer")
        names.setdefault(id(weight), []).append(plain)
    layers = [m.get_base_layer() for m in base.modules() if isinstance(m, BaseTunerLayer)]
    return [
        (layer, names[id(weight)])
        for layer in layers
        for weight in layer.parameters(recurse=False)
        if len(names[id(weight)]) > 1
    ]


@contextlib.contextmanager
def without_advice() -> Iterator[None]:
    """Hold back what peft warns of: shared weights, which are untied here, and names of its own
    calls that transformers has renamed."""
    with warnings.catch_warnings():
        for advice in _ADVICE:
            warnings.filterwarnings("ignore", advice)
        yield


def tied_embedding(base: Any, layer: Any) -> bool:
    """Whether what the layer shares is the one weight of embeddings and head."""
    head = base.get_output_embeddings()
    return head is not None and layer.weight is head.weight is base.get_input_embeddings().weight


def untie_adapted(adapted: Any) -> None:
    """Give adapted embeddings and heads a weight of their own; the configuration says so."""
    from torch.nn import Parameter

    base = adapted.get_base_model()
    for layer, names in shared_layers(adapted):
        if not tied_embedding(base, layer):
            continue
        layer.weight = Parameter(layer.weight.detach().clone(), requires_grad=False)
        for config in (base.config, text_config(base.config)):
            config.tie_word_embeddings = False
        logger.warning(
            "%s were one weight (tie_word_embeddings) and one of them has an adapter: merged, they "
            "are two, and the model is larger by one.",
            " and ".join(names),
        )
