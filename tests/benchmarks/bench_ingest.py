"""How fast and how big ingest is.

    python tests/benchmarks/bench_ingest.py speed --data FOLDER --model FOLDER
    python tests/benchmarks/bench_ingest.py memory --model FOLDER --rows 1000000

``speed`` times, in turns in one run, tokenising with templates and labels as this project does it;
the per-row loop of the method's public code (full text, then source, one row at a time; its texts
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
from pathlib import Path
from typing import Any, Self

import numpy as np

Messages = list[dict[str, str]]


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


def speed(args: argparse.Namespace) -> None:
    from versatune.data.encode import Encoder, EncoderSpec
    from versatune.data.tokenize import BATCH
    from versatune.modeling.checkpoints import load_tokenizer

    tokenizer = load_tokenizer(args.model)
    encoder = Encoder(EncoderSpec.of(tokenizer), args.max_length, "truncate")
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
    times: dict[str, list[float]] = {"ours": [], "per_row": [], "raw": []}
    results: dict[str, Any] = {}

    def timed(name: str, work: Callable[[], Any]) -> None:
        begin = time.perf_counter()
        results[name] = work()
        times[name].append(time.perf_counter() - begin)

    for _ in range(args.repeats):
        timed("ours", lambda: ours(encoder, rows, BATCH))
        timed("raw", lambda: raw(tokenizer, texts, BATCH))
        timed("per_row", lambda: per_row(tokenizer, texts, sources, args.max_length))
    found = [
        (ids, labels)
        for table in results["ours"]
        for ids, labels in zip(
            table["input_ids"].to_pylist(), table["labels"].to_pylist(), strict=True
        )
    ]
    expected = [(i, lb) for i, lb in results["per_row"] if any(x != -100 for x in lb)]
    equal = found == expected
    for name, values in times.items():
        print(f"{name:8} {statistics.median(values):8.3f} s  {len(rows) / min(values):9.0f} rows/s")
    pairs = list(zip(times["ours"], times["per_row"], times["raw"], strict=True))
    print(f"rows {len(rows)}, repeats {args.repeats}, cores {len(os.sched_getaffinity(0))}")
    print(f"equal output: {equal} ({len(found)} rows kept, {len(expected)} expected)")
    print(f"times the per-row loop: {statistics.median(p / o for o, p, _ in pairs):.2f}")
    print(f"times the raw batch encode: {statistics.median(r / o for o, _, r in pairs):.2f}")


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
            cleaned = clean(
                Domains.model_validate(domains), CleanParams(folder=folder / "clean", seed=0)
            )
        middle = time.perf_counter()
        params = TokenizeParams(
            folder=folder / "tokenized", max_length=args.max_length, num_workers=args.workers
        )
        with Watch() as tokenizing:
            store = tokenize(cleaned, args.model, load_tokenizer, params)
        end = time.perf_counter()
        print(
            f"rows {args.rows}: cleaned in {middle - begin:.0f} s, tokenised in {end - middle:.0f}"
        )
        print(f"kept {sum(d['rows'] for d in store.facts['train'].values())} training rows")
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
