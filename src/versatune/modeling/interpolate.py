"""Weights between a base model and a trained one: theta(a) = base + a (trained - base).

Written from file to file, a shard at a time, so that no whole model is in memory. Of an adapter,
a times its product is added to the base, which is the same.

Source: Wortsman et al., "Robust fine-tuning of zero-shot models" (WiSE-FT, arXiv 2109.01903).
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from versatune.artifacts import replacing
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import ADAPTER_CONFIG, CheckpointRef, load_model

if TYPE_CHECKING:
    from torch import Tensor

CONFIGS = ("config.json", ADAPTER_CONFIG, "generation_config.json", "model.safetensors.index.json")
"""The files besides the weights that loading needs."""


def between(base: "Tensor", trained: "Tensor", part: float) -> "Tensor":
    """base + part (trained - base) in float32, in the trained tensor's dtype; same shapes.

    Exactly ``base`` (in that dtype) at 0 and ``trained`` at 1. Numbers that are no floats stay the
    trained model's.
    """
    import torch

    if not trained.is_floating_point():
        return trained
    return torch.lerp(base.float(), trained.float(), part).to(trained.dtype)


class BaseWeights:
    """The base model's tensors by name, read from its files one at a time.

    A name that the files lack, or have in another shape (tied weights, older names), is looked up
    in the loaded model instead, which is then held in memory.
    """

    def __init__(self, base: CheckpointRef) -> None:
        self._base = base
        self._files: dict[str, Path] = {}
        for file in sorted(base.path.glob("*.safetensors")):
            with safe_open(file, "pt") as shard:
                self._files |= dict.fromkeys(shard.keys(), file)
        self._loaded: dict[str, Any] | None = None

    def like(self, name: str, trained: "Tensor") -> "Tensor":
        """The base's tensor. Raises VersatuneError when it has none of this name and shape."""
        if name in self._files:
            with safe_open(self._files[name], "pt") as shard:
                if shard.get_slice(name).get_shape() == list(trained.shape):
                    found: Tensor = shard.get_tensor(name)
                    return found
        if self._loaded is None:
            self._loaded = load_model(self._base).state_dict()
        loaded: Tensor | None = self._loaded.get(name)
        if loaded is None or loaded.shape != trained.shape:
            raise VersatuneError(
                f"{self._base.name} has no weight {name} of shape {tuple(trained.shape)}, so there "
                "is nothing between it and the trained model: set train.interpolate to null."
            )
        return loaded


def write_between(base: CheckpointRef, trained: Path, part: float, out: Path) -> None:
    """Write the model ``part`` of the way from ``base`` to ``trained`` into the folder ``out``.

    ``trained``: a folder with whole weights, or with only an adapter of ``base``.
    """
    adapter = not (trained / "config.json").is_file()
    out.mkdir(parents=True, exist_ok=True)
    for name in CONFIGS:
        if (trained / name).is_file():
            shutil.copy(trained / name, out / name)
    if adapter:
        scale_adapter(trained, part, out)
        return
    weights = BaseWeights(base)
    _rewrite(trained, out, lambda name, own: between(weights.like(name, own), own, part))


def scale_adapter(trained: Path, part: float, out: Path) -> None:
    """Write the adapter's weights into ``out`` with its second factor (B of B A) times ``part``."""

    def scaled(name: str, own: "Tensor") -> "Tensor":
        return own * part if "lora_B." in name or name.endswith("lora_embedding_B") else own

    _rewrite(trained, out, scaled)


def _rewrite(source: Path, out: Path, change: Callable[[str, "Tensor"], "Tensor"]) -> None:
    from safetensors.torch import save_file

    for file in sorted(source.glob("*.safetensors")):
        with safe_open(file, "pt") as shard:
            metadata = shard.metadata()
            made = {name: change(name, shard.get_tensor(name)) for name in shard.keys()}  # noqa: SIM118
        with replacing(out / file.name) as temporary:
            save_file({n: t.contiguous() for n, t in made.items()}, temporary, metadata=metadata)
