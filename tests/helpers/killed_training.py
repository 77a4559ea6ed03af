"""Trains in forked processes that are killed at chosen moments; see test_training_resume.py.

Usage: killed_training.py STORE CHECKPOINT OUT. Writes OUT/<scenario>/, one trained folder each.
"""

import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch

import versatune.training.callback
import versatune.training.run
import versatune.training.trainer
from versatune.artifacts import FolderRef
from versatune.modeling.checkpoints import CheckpointRef
from versatune.training import TrainParams, train
from versatune.training import trainer_checkpoints as checkpoints
from versatune.training.trainer import MixtureTrainer
from versatune.work import WorkFolder

PARAMS = {
    "rounds": 3,
    "steps_per_round": 4,
    "max_length": 64,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "heldout_rows_per_domain": 4,
    "learning_rate": 1e-2,
    "save_steps": 3,
    "save_total_limit": 1,
    "logging_steps": 2,
    "strategy": {"name": "foster", "potential_source": "progress", "sigma": 20.0},
}
LORA = {"lora": {"r": 4, "dropout": 0.3}}
GROWING = {"round_growth": 2.0}
"""Rounds of 2, 3 and 7 steps: each is several of Trainer's epochs."""
GUARD = {
    "rounds": 5,
    "learning_rate": 0.1,
    "lr_scheduler_type": "constant",
    "strategy": {
        "name": "expand",
        "rule": "paper",
        "target": "law",
        "potential_source": "progress",
        "delta": 0.3,
        "guard": {"threshold": 0.0, "patience": 2, "action": "stop"},
    },
}
"""Training that the guard ends early, with the last round's model."""

Moment = tuple[Any, str, int]
"""Kill when this attribute of this object is called for the so-manieth time."""

step = (MixtureTrainer, "compute_loss")
SCENARIOS: dict[str, tuple[dict[str, Any], list[Moment]]] = {
    "undisturbed": ({}, []),
    "before any checkpoint": ({}, [(*step, 4)]),
    "within round 1, after a checkpoint in it": ({}, [(*step, 8)]),
    "within round 2, weights have changed": ({}, [(*step, 10)]),
    "in the middle of a save": (
        {},
        [(MixtureTrainer, "_save_optimizer_and_scheduler", 3)],
    ),
    "saved but not marked": ({}, [(checkpoints, "mark", 2)]),
    "marked, the old one still there": ({}, [(checkpoints, "rotate", 3)]),
    "in the middle of deleting": ({}, [(checkpoints.shutil, "rmtree", 1)]),
    "while measuring": ({}, [(versatune.training.callback, "heldout_losses", 3)]),
    "before the final save": ({}, [(versatune.training.run, "save_final", 1)]),
    "before the seal": ({}, [(WorkFolder, "seal", 1)]),
    "three times": ({}, [(*step, 5), (*step, 7), (checkpoints, "mark", 1)]),
    "lora undisturbed": (LORA, []),
    "lora within round 2": (LORA, [(*step, 15)]),
    "growing undisturbed": (GROWING, []),
    "growing within rounds 2 and 3": (GROWING, [(*step, 9), (*step, 9)]),
    "guard undisturbed": (GUARD, []),
    "guard stops the round that was gone on with": (GUARD, [(*step, 26)]),
    "guard stopped before the final save": (GUARD, [(versatune.training.run, "save_final", 1)]),
}


def main() -> None:
    store = FolderRef.load(sys.argv[1])
    base = CheckpointRef.of_folder(sys.argv[2], name="tiny")
    gc.freeze()  # each training collects garbage: what was imported is none
    for name, (changes, moments) in SCENARIOS.items():
        folder = Path(sys.argv[3]) / name.replace(" ", "_").replace(",", "")
        params = TrainParams.model_validate({**PARAMS, **changes})

        def work(params: TrainParams = params, folder: Path = folder) -> None:
            torch.set_num_threads(1)
            train(store, base, params, initial_weights=START, folder=folder)

        for moment in moments:
            if _forked(work, moment) != -signal.SIGKILL:
                sys.exit(f"{name}: the process was not killed at {moment[1]}")
        if _forked(work, None) != 0:
            sys.exit(f"{name}: the last run failed")


START = {"law": 0.2, "medicine": 0.3, "code": 0.5}


def _forked(work: Callable[[], None], moment: Moment | None) -> int:
    """Run ``work`` in a process of its own; its exit code, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        try:
            if moment is not None:
                _kill_at(*moment)
            work()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _kill_at(owner: Any, name: str, count: int) -> None:
    real = getattr(owner, name)
    calls = 0

    def dying(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(owner, name, dying)


if __name__ == "__main__":
    main()
