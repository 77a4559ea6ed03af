"""How fast and how big ingest is.

    python tests/benchmarks/bench_ingest.py speed --data FOLDER --model FOLDER
    python tests/benchmarks/bench_ingest.py memory --model FOLDER --rows 1000000

``speed`` times, in turns in one run, tokenising with templates and labels as this project does it,
with its worker processes (started before, reading and writing shards) and in one process; the
per-row loop of the method's public code (full text, then source, one row at a time; its texts
are rendered beforehand, for nothing); and the bare batch encode of the same texts. ``--data`` is a
folder of JSONL files of instruction, input, output; ``--model`` any folder with a tokenizer.

``memory`` cleans and tokenises generated rows and prints the peak memory of this process and all
its workers together: proportional set size, where what processes share counts once, looked at
four times a second.
"""

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

Messages = list[dict[str, str]]

SHARD = 500
"""Rows of a shard that a worker takes at a time."""


def read(folder: Path) -> list[Messages]:
    rows = []
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            user = "\n\n".join(filter(None, (row["instruction"], row.get("input"))))
            rows.append(
                [{"role": "user", "content": user}, {"role": "assistant", "content": row["output"]}]
            )
    np.random.default_rng(0).shuffle(rows)  # type: ignore[arg-type]
    return rows


def per_row(tokenizer: Any, texts: list[str], sources: list[str], max_length: int) -> list[Any]:
    """Tokenise the full text, then the source, one row at a time; mask by the source's length."""
    eos = tokenizer.eos_token_id
    out = []
    for text, source in zip(texts, sources, strict=True):
        ids = tokenizer(text, add_special_tokens=False, max_length=max_length, truncation=True)
        head = tokenizer(source, add_special_tokens=False, max_length=max_length, truncation=True)
        labels = list(ids["input_ids"])
        labels[: len(head["input_ids"])] = [-100] * len(head["input_ids"])
        if eos in labels:
            after = len(labels) - labels[::-1].index(eos)
            labels[after:] = [-100] * (len(labels) - after)
        out.append((ids["input_ids"], labels))
    return out


def ours(encoder: Any, rows: list[Messages], batch: int) -> list[Any]:
    from versatune.data.encode import to_arrow

    tables = []
    batches = (rows[at : at + batch] for at in range(0, len(rows), batch))
    for results in encoder.encode_batches(batches):
        kept = [e for e in results if not isinstance(e, Exception)]
        tables.append(to_arrow(kept, [0] * len(kept), [""] * len(kept)))
    return tables


def raw(tokenizer: Any, texts: list[str], batch: int) -> None:
    for at in range(0, len(texts), batch):
        tokenizer(texts[at : at + batch], add_special_tokens=False)


class Workers:
    """The processes that tokenising starts for many rows; they read shards and write shards."""

    def __init__(self, spec: Any, max_length: int, rows: list[Messages], folder: Path) -> None:
        from versatune.data import tokenize
        from versatune.data.arrow import write_shard
        from versatune.data.collect import SCHEMA
        from versatune.data.config import TokenizeParams

        self._work, self._tasks = tokenize._work, []
        for at in range(0, len(rows), SHARD):
            part = [
                {"domain": 0, "messages": messages, "prompt": 0, "row": str(at + i)}
                for i, messages in enumerate(rows[at : at + SHARD])
            ]
            source = folder / f"in-{at:09}.arrow"
            write_shard(source, pa.Table.from_pylist(part, schema=SCHEMA))
            self._tasks.append(tokenize._Task(source, folder / f"out-{at:09}.arrow"))
        params = TokenizeParams(max_length=max_length, overflow="truncate")
        self._pool = ProcessPoolExecutor(
            len(os.sched_getaffinity(0)),
            get_context("spawn"),
            tokenize._start_worker,
            (spec, params),
        )
        self.run()  # they are started for a million rows once

    def run(self) -> list[pa.Table]:
        from versatune.data.arrow import read_shard

        for future in [self._pool.submit(self._work, task) for task in self._tasks]:
            future.result()
        return [read_shard(task.target) for task in self._tasks]


def speed(args: argparse.Namespace) -> None:
    from versatune.data.encode import Encoder, EncoderSpec
    from versatune.data.shards import BATCH
    from versatune.modeling.checkpoints import load_tokenizer

    tokenizer = load_tokenizer(args.model)
    spec = EncoderSpec.of(tokenizer)
    encoder = Encoder(spec, args.max_length, "truncate")
    # Typed control tokens become control tokens in the per-row loop, and plain text here.
    typed = encoder.template.control
    rows = read(args.data)[: args.rows]
    rows = [m for m in rows if not any(typed.search(turn["content"]) for turn in m)]
    encoder.encode(rows[:64])
    texts = [tokenizer.apply_chat_template(m, tokenize=False) for m in rows]
    sources = [
        tokenizer.apply_chat_template(m[:-1], tokenize=False, add_generation_prompt=True)
        for m in rows
    ]
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        workers = Workers(spec, args.max_length, rows, Path(scratch))
        contenders: dict[str, Callable[[], Any]] = {
            "processes": workers.run,
            "one process": lambda: ours(encoder, rows, BATCH),
            "raw encode": lambda: raw(tokenizer, texts, BATCH),
            "per-row loop": lambda: per_row(tokenizer, texts, sources, args.max_length),
        }
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(args.repeats):
            for name, work in contenders.items():
                begin = time.perf_counter()
                results[name] = work()
                times[name].append(time.perf_counter() - begin)
    expected = [(i, lb) for i, lb in results["per-row loop"] if any(x != -100 for x in lb)]
    print(f"rows {len(rows)}, repeats {args.repeats}, cores {len(os.sched_getaffinity(0))}")
    for name, values in times.items():
        print(
            f"{name:>12} {statistics.median(values):8.3f} s  {len(rows) / min(values):7.0f} rows/s"
        )
    for name in ("processes", "one process"):
        found = [
            row
            for table in results[name]
            for row in zip(table["input_ids"].to_pylist(), table["labels"].to_pylist(), strict=True)
        ]
        loop, encode = (
            statistics.median(b / a for a, b in zip(times[name], times[other], strict=True))
            for other in ("per-row loop", "raw encode")
        )
        print(
            f"{name:>12}: {loop:.2f} times the per-row loop, {encode:.2f} of the raw encode; "
            f"equal output: {found == expected} ({len(found)} rows)"
        )


def generate(path: Path, rows: int, seed: int) -> None:
    """Rows of about a hundred words drawn from a large vocabulary."""
    rng = np.random.default_rng(seed)
    words = np.array(["".join(rng.choice(list("abcdefghiklmnoprstuvwy"), 6)) for _ in range(20000)])
    with path.open("w", encoding="utf-8") as out:
        for _ in range(rows):
            prompt, answer = (" ".join(rng.choice(words, n)) for n in rng.integers(10, 80, 2))
            out.write(json.dumps({"instruction": prompt, "input": "", "output": answer}) + "\n")


class Watch(threading.Thread):
    """Looks at the memory of this process and its children while a block runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0.0
        """GiB."""
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.25):
            self.peak = max(self.peak, sum(map(_gib, _family(os.getpid()))))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


def _family(pid: int) -> list[int]:
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            children += map(int, task.read_text().split())
    return [pid, *(member for child in children for member in _family(child))]


def _gib(pid: int) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 2**20
    return 0.0


def memory(args: argparse.Namespace) -> None:
    from versatune.data.clean import clean
    from versatune.data.config import CleanParams, Domains, TokenizeParams
    from versatune.data.tokenize import tokenize
    from versatune.modeling.checkpoints import load_tokenizer
    from versatune.work import make_folder

    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        folder = Path(scratch)
        domains = {}
        for number, name in enumerate(("law", "code")):
            child = os.fork()  # generating must not count into the peak
            if child == 0:
                generate(folder / f"{name}.jsonl", args.rows // 2, number)
                os._exit(0)
            os.waitpid(child, 0)
            source = {"path": str(folder / f"{name}.jsonl")}
            domains[name] = {"description": name, "sources": [source]}
        begin = time.perf_counter()
        with Watch() as cleaning:
            piece = clean(Domains.model_validate(domains), CleanParams(seed=0))
            cleaned = make_folder(piece, folder / "clean")
        middle = time.perf_counter()
        params = TokenizeParams(max_length=args.max_length, num_workers=args.workers)
        with Watch() as tokenizing:
            piece = tokenize(cleaned, args.model, load_tokenizer, params)
            store = make_folder(piece, folder / "tokenized")
        end = time.perf_counter()
        print(
            f"rows {args.rows}: cleaned in {middle - begin:.0f} s, tokenised in {end - middle:.0f}"
        )
        print(f"kept {sum(d['rows'] for d in store.metadata['train'].values())} training rows")
        print(
            f"peak of cleaning: {cleaning.peak:.2f} GiB, of tokenising: {tokenizing.peak:.2f} GiB"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=["speed", "memory"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, help="null: as many as pay")
    parser.add_argument("--scratch", type=Path)
    args = parser.parse_args()
    if args.mode == "speed":
        speed(args)
    else:
        args.rows = args.rows or 1_000_000
        memory(args)


if __name__ == "__main__":
    main()
