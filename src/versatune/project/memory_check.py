"""Whether training fits on this machine, checked before the first node and not after the probe."""

from collections.abc import Iterator
from pathlib import Path

from versatune.demo.base_model import BaseModelParams
from versatune.project.blocks import Problem
from versatune.training.config import TrainParams
from versatune.work import ParallelParams

LARGE = 10**9
"""Below this many bytes of weights the count is not worth its seconds."""


def check_memory(
    base_model: BaseModelParams, train: TrainParams, parallel: ParallelParams
) -> Iterator[Problem]:
    """The memory plan, for a model on this disk that is trained by processes of this machine.

    Models on the hub, and training on other machines, are checked when training begins.
    """
    here = parallel.engine == "local" and train.launcher.config_file is None
    folder = Path(base_model.name_or_path or "").expanduser()
    if not here or base_model.kind != "pretrained" or not (folder / "config.json").is_file():
        return
    if sum(file.stat().st_size for file in folder.glob("*.safetensors")) < LARGE:
        return
    from versatune.training.run import too_large

    if problem := too_large(folder, train, "train"):
        yield Problem(("train",), problem.removesuffix("."))
