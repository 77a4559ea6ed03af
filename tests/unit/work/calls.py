"""What the calls of the parallel tests do; importable by the processes that make them.

Each new process imports this, so training and tokenising are imported by the calls that need them.
"""

import contextlib
import logging
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from versatune.errors import VersatuneError
from versatune.work.calls import emit

if TYPE_CHECKING:
    from versatune.data.shards import Task
    from versatune.training.job import Training


def square(number: int) -> int:
    emit({"number": number})
    logging.getLogger("versatune.calls").info("squaring %d", number)
    logging.getLogger("versatune.chatty").warning("nobody asked")
    return number * number


def process() -> int:
    return os.getpid()


def threads() -> tuple[int, str | None]:
    import torch

    return torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")


def with_a_bar() -> int:
    from tqdm import tqdm

    return sum(tqdm(range(3), desc="a bar"))


def killed_once(folder: Path, number: int) -> int:
    """Write a first half, be killed, and go on from it in the next process."""
    half = folder / f"{number}.half"
    if not half.exists():
        half.write_text("done")
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def killed_after_a_shard(task: "Task", given: Path) -> None:
    """Tokenise a shard; the first of a store is written by a process that is killed then."""
    from versatune.data.tokenize import _work as tokenize_shard

    mark = task.target.parent.parent / "was_killed"
    with contextlib.suppress(FileExistsError):
        mark.touch(exist_ok=False)
        os.kill(os.getpid(), signal.SIGKILL)
    tokenize_shard(task, given)


def always_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(number: int) -> None:
    raise VersatuneError(f"{number} is no number for this")


def fail() -> None:
    raise KeyError("missing")


def wait_for(path: Path) -> str:
    """End when another call has written ``path``: two at once, or never."""
    import time

    (path.parent / f"{os.getpid()}.pid").touch()
    while not path.exists():
        time.sleep(0.05)
    return "seen"


def write(path: Path) -> str:
    path.touch()
    return "written"


def killed_in_training(training: "Training", folder: Path) -> Mapping[str, Any]:
    """Train; the first process is killed when its second round has ended."""
    from versatune.training.api import piece_of

    mark = folder.with_name(f"{folder.name}.was_killed")

    def on_round(event: dict[str, Any]) -> None:
        if event["round"] == 2 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    return piece_of(training, on_round).make(folder)
