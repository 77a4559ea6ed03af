"""What the calls of the parallel tests do; importable by the processes that make them."""

import logging
import os
import signal
from pathlib import Path

from versatune.errors import VersatuneError
from versatune.work.parallel import emit


def square(number: int) -> int:
    emit({"number": number})
    logging.getLogger("versatune.calls").info("squaring %d", number)
    return number * number


def threads() -> tuple[int, str | None]:
    import torch

    return torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")


def killed_once(folder: Path, number: int) -> int:
    """Write a first half, be killed, and go on from it in the next process."""
    half = folder / f"{number}.half"
    if not half.exists():
        half.write_text("done")
        os.kill(os.getpid(), signal.SIGKILL)
    return number


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
