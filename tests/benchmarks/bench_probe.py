"""Speed of the probe, as ratios in one run.

    python -m tests.benchmarks.bench_probe MODEL_DIR [--data DATA_DIR] [--tokens 128 --rows 256]
        [--repeats 3] [--parts sampling judging needed domains]

``sampling``: samples a second of batch-1 ``generate`` called as the paper's public code calls it
(temperature 1, top-p 1, repetition penalty 1.1), of plain batched ``generate`` at several batch
sizes (the best one counts), and of this project's sampler, all in bfloat16; with ``--clock cpu``
a second is one of this process's processor time, which other processes hardly disturb: take one
thread (OMP_NUM_THREADS=1) then, since threads that wait count too. ``judging``:
throughput of the judges, with ``--data``, a folder of one JSONL file a domain; the endpoint judge
asks a local server that takes a quarter of a second an answer. ``needed``: samples for a
half-width of 0.02. ``domains``: what one look at the intervals costs as domains are added.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tests.helpers.hostile_server import chat, serving
from versatune.data.clean import clean
from versatune.data.config import CleanParams, Domains
from versatune.modeling.checkpoints import load_model, load_tokenizer
from versatune.probing import judges
from versatune.probing.config import EndpointParams, JudgeParams
from versatune.probing.estimate import estimate_shares, narrow_enough
from versatune.probing.judges.base import About, Labelled
from versatune.probing.judges.endpoint import Endpoint
from versatune.samplers.base import stream
from versatune.samplers.decoding import Batch, Decoder
from versatune.work import make_folder

DOMAINS = ("law", "medicine", "finance", "science", "code", "other")
PARTS = ("sampling", "judging", "needed", "domains")
ANSWER_SECONDS = 0.25
"""How long the endpoint judge's server takes for an answer."""


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def seconds(work: Callable[[], object], clock: str = "wall") -> float:
    """Time of one call."""
    begun = CLOCKS[clock]()
    work()
    return CLOCKS[clock]() - begun


def generate(
    model: torch.nn.Module, args: argparse.Namespace, start: int, rows: int, penalty: float
) -> float:
    """Samples a second of transformers' own ``generate``."""
    ids = torch.full((rows, 1), start)
    how = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0}
    how |= {"repetition_penalty": penalty, "max_new_tokens": args.tokens, "pad_token_id": 0}

    def work() -> object:
        with torch.inference_mode():
            return model.generate(ids, attention_mask=torch.ones_like(ids), **how)

    return rows / seconds(work, args.clock)


def ours(
    model: torch.nn.Module, args: argparse.Namespace, start: int, rows: int, ends: set[int]
) -> float:
    """Samples a second of the probe's decoding loop."""
    decoder = Decoder(model, [start], args.tokens)
    uniforms = np.stack([stream(0, i, args.tokens) for i in range(rows)])
    return rows / seconds(lambda: list(decoder.sample(Batch(uniforms, ends))), args.clock)


def sampling(args: argparse.Namespace) -> None:
    """Ratios of samples a second; the pieces are interleaved and the medians taken."""
    tokenizer = load_tokenizer(args.model)
    start, ends = tokenizer.bos_token_id, {tokenizer.eos_token_id}
    plain = load_model(args.model, dtype="bfloat16")
    fast = load_model(args.model, dtype="bfloat16")
    few = argparse.Namespace(tokens=4, clock="wall")
    generate(plain, few, start, 8, 1.0)
    ours(fast, few, start, 8, ends)
    names = ["batch 1 as the public code", *(f"generate, batch {b}" for b in args.batches), "ours"]
    rates: dict[str, list[float]] = {name: [] for name in names}

    def note(name: str, rate: float) -> None:
        rates[name].append(rate)
        print(f"  {name}: {rate:.2f} samples/s", flush=True)

    for _ in range(args.repeats):
        each = [1 / generate(plain, args, start, 1, 1.1) for _ in range(args.singles)]
        note(names[0], float(1 / np.mean(each)))
        for batch in args.batches:
            note(f"generate, batch {batch}", generate(plain, args, start, batch, 1.0))
        note("ours", ours(fast, args, start, args.rows, ends))
    middle = {name: float(np.median(r)) for name, r in rates.items()}
    for name, rate in middle.items():
        print(f"{name}: {rate:.2f} samples/s (median)")
    best = max(middle[f"generate, batch {b}"] for b in args.batches)
    print(f"ours / batch 1: {middle['ours'] / middle[names[0]]:.1f} (wanted: 15, aim 25)")
    print(f"ours / best batched generate: {middle['ours'] / best:.2f} (wanted: 1.2)")


def judging(args: argparse.Namespace) -> None:
    """Texts a second of the judges that run here."""
    texts = [
        json.loads(line)["output"]
        for d in DOMAINS
        for line in (args.data / f"{d}.jsonl").read_text(encoding="utf-8").splitlines()[:100]
    ]
    with tempfile.TemporaryDirectory() as folder:
        sources = {
            d: {"description": d, "sources": [{"path": str(args.data / f"{d}.jsonl")}]}
            for d in DOMAINS
        }
        rows = make_folder(clean(Domains(sources), CleanParams(seed=0)), Path(folder) / "clean")
        for kind, n in (("classifier", 600), ("likelihood", 64)):
            likelihood = {"name_or_path": str(args.model), "labelled_per_domain": 10}
            params = JudgeParams.model_validate({"kind": kind, "likelihood": likelihood})
            target = Path(folder) / kind
            begun = time.perf_counter()
            about = About(dict.fromkeys(DOMAINS, ""), keep=target)
            piece = judges.train_judge(rows, params, about)
            ref = make_folder(piece, target)
            ready = time.perf_counter() - begun
            judge = judges.open_judge(ref, params, about)
            rate = n / seconds(lambda judge=judge, n=n: judge.judge(texts[:n]))
            print(f"judge {kind}: {rate:.0f} texts/s, made ready in {ready:.0f} s", flush=True)
        asking([f"{i}: {t}" for i, t in enumerate(texts[:256])], Path(folder))


def asking(texts: list[str], folder: Path) -> None:
    """Texts a second of the endpoint judge: how near it keeps all its requests under way."""

    def late(handler: object, body: dict) -> None:
        time.sleep(ANSWER_SECONDS)
        chat(json.dumps(dict.fromkeys(DOMAINS, 1 / 6)))(handler, body)

    for concurrency in (8, 32):
        keep = folder / f"endpoint-{concurrency}"
        keep.mkdir()
        with serving(lambda _: late) as server:
            asked = {"url": server.url, "model": "m", "concurrency": concurrency}
            about = About(keep=keep, api_key="no key")
            judge = Endpoint(dict.fromkeys(DOMAINS, ""), EndpointParams(server=asked), about)
            rate = len(texts) / seconds(lambda judge=judge: judge.judge(texts))
        print(
            f"judge endpoint, {concurrency} at once: {rate:.0f} texts/s of the "
            f"{concurrency / ANSWER_SECONDS:.0f} that the server could answer",
            flush=True,
        )


def needed(half_width: float = 0.02) -> None:
    """Samples until every interval is narrow, for three share vectors and two judges."""
    vectors = {
        "even": np.full(6, 1 / 6),
        "sample": np.array([0.08, 0.14, 0.10, 0.20, 0.18, 0.30]),
        "LLaMA-2-7B": np.array([571, 866, 653, 595, 813, 6489]) / 9987,
    }
    for name, shares in vectors.items():
        for accuracy in (0.97, 0.85):
            rng = np.random.default_rng(0)
            response = np.full((6, 6), (1 - accuracy) / 5) + np.eye(6) * (
                accuracy - (1 - accuracy) / 5
            )
            labels = np.repeat(np.arange(6), 600)
            rows = np.eye(6)[[rng.choice(6, p=response[y]) for y in labels]]
            labelled = Labelled(rows, labels, np.full(len(labels), np.nan))
            truth = rng.choice(6, 20_480, p=shares)
            judged = np.eye(6)[[rng.choice(6, p=response[y]) for y in truth]]
            for n in range(1024, 20_481, 512):
                found = estimate_shares(judged[:n], labelled, "pacc", 300, 0)
                if narrow_enough(found, n, half_width):
                    enough = f"{n} samples"
                    break
            else:
                enough = f"more than {n} samples"
            print(f"shares {name}, judge right in {accuracy:.0%}: {enough} for +-{half_width}")
    print("the public code draws 10000 whatever they say, and gives no interval")


def domains(clock: str, n: int = 4096, per_domain: int = 600) -> None:
    """Seconds of one look at the intervals with more and more domains, default settings."""
    for k in (6, 24, 96):
        rng = np.random.default_rng(0)
        labels = np.repeat(np.arange(k), per_domain)
        response = 0.1 * rng.dirichlet(np.ones(k), size=k) + 0.9 * np.eye(k)
        rows = np.eye(k)[[rng.choice(k, p=response[y]) for y in labels]]
        labelled = Labelled(rows, labels, np.full(len(labels), np.nan))
        truth = rng.choice(k, n, p=rng.dirichlet(np.ones(k)))
        judged = np.eye(k)[[rng.choice(k, p=response[y]) for y in truth]]
        look = seconds(lambda j=judged, of=labelled: estimate_shares(j, of, "pacc", 1000, 0), clock)
        print(f"{k} domains: {look:.1f} s a look", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--singles", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    args = parser.parse_args()
    if "sampling" in args.parts:
        sampling(args)
    if "judging" in args.parts and args.data:
        judging(args)
    if "needed" in args.parts:
        needed()
    if "domains" in args.parts:
        domains(args.clock)


if __name__ == "__main__":
    main()
