"""Training by a shipped accelerate configuration, on CPUs; see test_training_scale.py.

`start` is what `kedro run` does on machine 0; run as a script this file takes part in it in the
place of `python -m versatune.training`. accelerate (1.15) takes FSDP for GPUs alone and would fall
back to plain data parallelism without a word; :func:`shard_on_cpus` lifts that one condition, and
all else is accelerate's, transformers' and torch's own, sharded tensors over gloo included.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from versatune.artifacts import FolderRef
from versatune.modeling.checkpoints import CheckpointRef
from versatune.training import TrainParams, __main__, launch, train

START = {"law": 0.4, "medicine": 0.2, "code": 0.4}
PARAMS: dict[str, Any] = {
    "rounds": 5,
    "steps_per_round": 2,
    "max_length": 64,
    "per_device_train_batch_size": 2,
    "heldout_rows_per_domain": 5,
    "heldout_batch_tokens": 100,
    "learning_rate": 1e-2,
    "lr_scheduler_type": "constant",
    "strategy": {
        "name": "expand",
        "rule": "paper",
        "target": "law",
        "potential_source": "progress",
        "delta": 0.3,
        "guard": {"threshold": 0.0, "patience": 1},
    },
}
LORA = {**PARAMS, "lora": {"r": 2, "alpha": 4}, "learning_rate": 5e-2}
"""The same with adapters."""
DIE_AT = "DIE_AT"
"""Environment variable: the step in which the first process kills itself."""


def start(
    store: Path, checkpoint: Path, folder: Path, config: Path, params: dict[str, Any] = PARAMS
) -> None:
    """Train in ``folder`` as ``config`` says."""
    real = launch.command

    def through_this_file(*given: Any) -> list[str]:
        words = real(*given)
        at = words.index("versatune.training")
        return [*words[: at - 1], __file__, *words[at + 1 :]]

    launch.command = through_this_file
    train(
        FolderRef.load(store),
        CheckpointRef.of_folder(checkpoint, name="tiny"),
        TrainParams.model_validate({**params, "launcher": {"config_file": config}}),
        initial_weights=START,
        folder=folder,
    )


def shard_on_cpus() -> None:
    """Let accelerate's state be FSDP's whenever its plugin is there, GPU or not."""
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType

    real = AcceleratorState.__init__

    def sharded(self: Any, *args: Any, fsdp_plugin: Any = None, **given: Any) -> None:
        real(self, *args, fsdp_plugin=fsdp_plugin, **given)
        if fsdp_plugin is not None:
            self.fsdp_plugin, self.distributed_type = fsdp_plugin, DistributedType.FSDP
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = sharded


def die_at(step: int) -> None:
    """Have the first process killed in the middle of a step."""
    from versatune.training.trainer import MixtureTrainer

    real = MixtureTrainer.compute_loss

    def dying(self: MixtureTrainer, *args: Any, **given: Any) -> Any:
        if self.state.global_step == step and self.is_world_process_zero():
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, *args, **given)

    MixtureTrainer.compute_loss = dying


if __name__ == "__main__":
    shard_on_cpus()
    if DIE_AT in os.environ:
        die_at(int(os.environ[DIE_AT]))
    sys.exit(__main__.main())
