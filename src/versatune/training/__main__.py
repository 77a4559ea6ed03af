"""One process of a training: `python -m versatune.training JOB.json`, started by a launcher.

With `--watched` it ends when its standard input does; a scheduler's or a background process's
is empty from the start, so that only `versatune.training.launch` asks for it.
"""

import argparse
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from versatune.artifacts import read_json, write_atomic
from versatune.errors import VersatuneError
from versatune.training.job import FAILURE, Job


def _end_with_parent() -> None:
    """Nothing is written to standard input: it closes when the watching process ends."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    """Run this process's part of the job; after a VersatuneError, written to a file, the exit code
    is 1."""
    first = os.environ.get("RANK", "0") == "0"
    # What is worth a warning is the same in all processes: one says it.
    logging.basicConfig(
        level=logging.INFO if first else logging.ERROR, format="%(message)s", stream=sys.stderr
    )
    parser = argparse.ArgumentParser(prog="python -m versatune.training")
    parser.add_argument("job", type=Path, help="the job.json in the folder of the training")
    parser.add_argument("--watched", action="store_true", help="end with standard input")
    given = parser.parse_args()
    if given.watched:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    job = Job.model_validate(read_json(given.job))
    from versatune.training.run import run

    try:
        run(job)
    except VersatuneError as error:
        if first:
            write_atomic(job.folder / FAILURE, str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
