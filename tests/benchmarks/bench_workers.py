"""One comparison with one worker and with two, a thread each: ``python -m
tests.benchmarks.bench_workers PROJECT [--workers 1 2] [--params key=value ...]``.

PROJECT has run as far as ``mixture``; the comparison is its own. Each number of workers gets a copy
of it. Prints seconds on the clock, and seconds of processor time: of all processes together, and
on the longest way (the project's own process, then the worker that had the most to do), which is
what the clock would show with a free core for each worker. Ends with 1 when the results differ.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import psutil

TABLE = "data/08_reporting/comparison.parquet"


def measured(project: Path, workers: int, params: list[str]) -> tuple[float, float, float]:
    """Seconds on the clock, processor seconds of all processes, and on the longest way."""
    began, used = time.monotonic(), dict[int, float]()
    given = ",".join([*params, f"parallel.workers={workers}", "parallel.cpus=1"])
    command = [sys.executable, "-m", "kedro", "run", "--pipeline", "compare", "--params", given]
    with subprocess.Popen(command, cwd=project) as run:
        root = psutil.Process(run.pid)
        while run.poll() is None:
            for process in [root, *_children(root)]:
                try:
                    times = process.cpu_times()
                except psutil.Error:
                    continue
                used[process.pid] = times.user + times.system
            time.sleep(0.25)
    if run.returncode:
        sys.exit(f"the comparison with {workers} workers ended with code {run.returncode}")
    own = used.pop(root.pid)
    return time.monotonic() - began, own + sum(used.values()), own + max(used.values(), default=0.0)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--params", nargs="*", default=[], help="key=value, as for kedro run")
    given = parser.parse_args()
    first: tuple[float, float] | None = None
    tables = []
    with tempfile.TemporaryDirectory() as folder:
        for workers in given.workers:
            copy = Path(folder) / str(workers)
            shutil.copytree(given.project, copy, symlinks=True)
            clock, used, longest = measured(copy, workers, given.params)
            first = first or (clock, longest)
            tables.append(pd.read_parquet(copy / TABLE))
            print(f"{workers} workers: {clock:.1f} s, {first[0] / clock:.2f} times as fast; "
                  f"processor time {used:.1f} s, {longest:.1f} s on the longest way, "
                  f"{first[1] / longest:.2f} times as fast", flush=True)  # fmt: skip
    same = all(table.equals(tables[0]) for table in tables)
    print("the results are the same" if same else "THE RESULTS DIFFER")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
