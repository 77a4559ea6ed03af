"""What a store of many rows takes to plan, to train from and to go on with: seconds and memory.

    python -m tests.benchmarks.bench_store [--rows 1000000 10000000] [--domains 100] [--folder DIR]

A store is made up on the disk (examples of one token, whose index says other lengths) in shards of
10,000 rows, as tokenising writes them: 4.6 GB for 100 million rows. A process of its own then does
what a run does with it, a line each: open the rows, the budget of the plan, plan a round, plan the
round after it, and a second time from a checkpoint's state, which must give the very same rows.
Memory is what the process holds of its own (RssAnon of /proc), at its highest within the line, less
what the imports took; pages of the store that the system can drop again are not in it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from versatune.artifacts import FolderRef
from versatune.data.arrow import describe
from versatune.data.clean import SHARD_ROWS
from versatune.data.encode import SCHEMA
from versatune.data.store import TokenizedSplit, write_index
from versatune.mixing.config import ProportionalParams
from versatune.modeling.heldout import HeldOut
from versatune.training.batches import Row
from versatune.training.config import TrainParams
from versatune.training.costs import Budget
from versatune.training.job import MixtureInputs
from versatune.training.rounds import Mixture

Found = TypeVar("Found")
MIB = 2**20
HELD_OUT = 100
"""Rows a domain of the other splits."""


def make_store(folder: Path, rows: int, domains: int) -> FolderRef:
    """A store of domains of very different sizes."""
    rng = np.random.default_rng(0)
    sizes = np.maximum(rng.dirichlet(np.ones(domains)) * rows, HELD_OUT).astype(np.int64)
    write_split(folder / "train", sizes, rng)
    write_split(folder / "steering", np.full(domains, HELD_OUT), rng)
    names = [f"d{j}" for j in range(domains)]
    return FolderRef(path=folder, fingerprint="made up", metadata={"domains": names})


def write_split(folder: Path, sizes: np.ndarray, rng: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    names: list[str] = []
    ends, total = np.cumsum(sizes), int(sizes.sum())
    for start in range(0, total, SHARD_ROWS):
        n = min(SHARD_ROWS, total - start)
        ids = pa.ListArray.from_arrays(np.arange(n + 1, dtype=np.int32), np.zeros(n, np.int32))
        lengths = np.clip(rng.lognormal(5.0, 0.8, n), 8, 2048).astype(np.int32)
        supervised = np.maximum(lengths * 0.4, 1).astype(np.int32)
        domain = np.searchsorted(ends, np.arange(start, start + n), side="right").astype(np.int32)
        row = pa.array(["rows.jsonl:1"]).take(np.zeros(n, np.int32))
        columns = [ids, ids, domain, lengths, supervised, 4 * supervised, row]
        table = pa.Table.from_arrays([pa.array(column) for column in columns], schema=SCHEMA)
        names.append(f"data-{len(names):05d}.arrow")
        with (
            pa.OSFile(str(folder / names[-1]), "wb") as sink,
            pa.ipc.new_stream(sink, SCHEMA) as out,
        ):
            out.write_table(table)
    describe(folder, names, SCHEMA)
    write_index(folder)


def own_bytes() -> int:
    """Memory of this process that no file stands for."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def watched(what: str, before: int, action: Callable[[], Found]) -> Found:
    """Print the seconds that ``action`` took, and the most memory over ``before`` within it."""
    most, done = [own_bytes()], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            most.append(own_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began, worked = time.perf_counter(), time.process_time()
    found = action()
    seconds, busy = time.perf_counter() - began, time.process_time() - worked
    done.set()
    watcher.join()
    held = own_bytes() - before
    print(
        f"  {what:24s} {seconds:6.2f} s ({busy:6.2f} s of processor time), at most "
        f"{(max(most) - before) / MIB:6.0f} MiB, then {held / MIB:6.0f} MiB",
        flush=True,
    )
    return found


PARAMS = TrainParams(max_length=2048, rounds=2, steps_per_round=128, strategy=ProportionalParams())


def begun(ref: FolderRef) -> Mixture:
    split = TokenizedSplit.load(ref, "train")
    return Mixture(PARAMS, split, MixtureInputs(), PARAMS.per_device_train_batch_size)


def resumed(ref: FolderRef, state: dict[str, Any]) -> list[Row]:
    mixture = begun(ref)
    mixture.load(state)
    return mixture.rows(1)


def budget(split: TokenizedSplit) -> dict[str, float]:
    shares = np.full(len(split.domains), 1 / len(split.domains))
    made = Budget(PARAMS, split, shares)
    return made.spent(made.passes(shares))


def use(ref: FolderRef) -> None:
    """What a run does with the rows of a store."""
    before, names = own_bytes(), ref.metadata["domains"]
    same = HeldOut(nats_per_token=2.0, bits_per_byte=1.0, stderr=0.0, n_rows=1, n_tokens=1)
    losses = dict.fromkeys(names, same)
    split = watched("open the rows", before, lambda: TokenizedSplit.load(ref, "train"))
    watched("the plan's budget", before, lambda: budget(split))
    mixture = watched("begin a training", before, lambda: begun(ref))
    mixture.begin(losses, 0.0)
    watched("plan a round", before, lambda: mixture.rows(0))
    mixture.finish(PARAMS.steps_per_round, losses, np.full(len(names), 2.0), 0.0, 0.0)
    rows = watched("plan the next round", before, lambda: mixture.rows(1))
    state = json.loads(json.dumps(mixture.state()))
    again = watched("go on from a checkpoint", before, lambda: resumed(ref, state))
    assert again == rows, "a resumed training takes other rows"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--domains", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="where the stores lie for a while")
    parser.add_argument("--use", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.use:
        use(FolderRef.model_validate_json(options.use.read_text(encoding="utf-8")))
        return
    for rows in options.rows:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            ref = make_store(Path(folder) / "store", rows, options.domains)
            given = Path(folder) / "store.json"
            given.write_text(ref.model_dump_json(), encoding="utf-8")
            print(f"{rows:,} rows in {options.domains} domains", flush=True)
            command = [sys.executable, "-m", "tests.benchmarks.bench_store", "--use", str(given)]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
