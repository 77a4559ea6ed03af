"""The probe against base models whose shares are known.

    python -m tests.benchmarks.truth_checks OUT_DIR [--seeds 5 --documents 16000 --epochs 3]

A world is a share vector and a seed: the embedded sample's corpus is made with those shares, a
base model is pretrained on it, and 8,192 samples of it are judged by three judges:

- ``default``: the default classifier, trained on the instruction rows, cleaned as ingest does;
- ``weak``: the same with a vocabulary of 100, which errs on the samples but hardly on the rows;
- ``opening``: reads only the first two words of a text, trained on documents of another sample,
  so it errs on its rows as it does on the samples: what the corrections assume.

Each correction's shares, and those after an audit of 512 samples by the default judge or by a
reader who is right (what was drawn), are compared by total variation with the corpus and with what
the model drew, and with no correction's, world by world. What is done is kept in OUT_DIR and found
again; ``--done`` shows the table of it. Several processes share the work.
"""

import argparse
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from scipy.stats import t
from sklearn.linear_model import LogisticRegression

from tests.helpers.probe_rows import cleaned
from tests.helpers.probing import first_samples
from versatune.artifacts import FolderRef, write_json
from versatune.data.clean import clean
from versatune.data.config import CleanParams, Domains
from versatune.demo.base_model import BaseModelParams, make_base, pretrained_here
from versatune.demo.build import build, describe
from versatune.demo.config import SampleParams
from versatune.intervals import Array
from versatune.probing.config import ClassifierParams
from versatune.probing.estimate import Audit, estimate_shares
from versatune.probing.judges.base import Labelled
from versatune.probing.judges.classifier import Classifier, Features, train
from versatune.probing.probe import judge_samples
from versatune.probing.quantification import audit_chances
from versatune.probing.shift import diagnose
from versatune.samplers.base import Sample
from versatune.samplers.config import SamplingParams
from versatune.samplers.local import ModelSampler
from versatune.work import make_folder

DOMAINS = ("law", "medicine", "finance", "science", "code", "other")
VECTORS = {
    "default": (0.08, 0.14, 0.10, 0.20, 0.18, 0.30),
    "code": (0.03, 0.06, 0.04, 0.07, 0.55, 0.25),
    "law": (0.40, 0.05, 0.25, 0.05, 0.05, 0.20),
}
CORRECTIONS = ("none", "pacc", "acc", "em")
AUDITS = {"default": "audit by default", "reader": "audit by a reader"}
AUDITED = 512
"""Samples that a second judge looks at."""
OPENING = 2
"""Words that the judge ``opening`` reads."""
ANOTHER = 1000
"""Added to a world's seed for the documents that judge learns from."""


def world(name: str, seed: int, args: argparse.Namespace) -> dict:
    """Make one base model, probe it, and return each judge's and estimator's findings."""
    done = found_file(args.out, name, seed)
    folder = done.parent
    if done.is_file():
        return json.loads(done.read_text())
    shares = dict(zip(DOMAINS, VECTORS[name], strict=True))
    wanted = SampleParams(seed=seed, shares=shares, documents=args.documents)
    sample = describe(make_folder(build(wanted), folder / "sample"))
    corpus = Path(sample["corpus"])
    pretraining = {
        "seed": seed,
        "num_train_epochs": args.epochs,
        "hidden_size": args.hidden_size,
        "intermediate_size": 2 * args.hidden_size,
        "num_hidden_layers": args.layers,
        "num_attention_heads": 4,
        "learning_rate": args.learning_rate,
    }
    piece = make_base(BaseModelParams(pretrain=pretraining), corpus)
    base = pretrained_here(make_folder(piece, folder / "base").path)
    sampler = ModelSampler(base, SamplingParams(max_new_tokens=96))
    samples = first_samples(folder / "samples", sampler, seed, 256, args.n)
    true = drawn(corpus, [s.text for s in samples])
    rows = instruction_rows(sample, folder / "clean", seed)
    openings = document_rows(folder / "documents", seed + ANOTHER)
    reader = {"reader": (np.eye(len(DOMAINS))[true], Labelled.oracle(len(DOMAINS)))}
    usual, weak = ClassifierParams(), ClassifierParams(max_features=100)
    default, second = findings(folder / "default", rows, usual, samples, true, reader, seed)
    seconds = {"default": second, **reader}
    found = {
        "truth": [sample["shares"][d] for d in DOMAINS],
        "drawn": (np.bincount(true, minlength=6) / len(true)).tolist(),
        "judges": {
            "default": default,
            "weak": findings(folder / "weak", rows, weak, samples, true, seconds, seed)[0],
            "opening": findings(
                folder / "opening", openings, usual, opened(samples), true, seconds, seed
            )[0],
        },
    }
    write_json(done, found)
    return found


def found_file(out: Path, name: str, seed: int) -> Path:
    """Where a world's findings are kept."""
    return out / f"{name}-{seed}" / "found.json"


def instruction_rows(sample: dict, folder: Path, seed: int) -> FolderRef:
    """The sample's instruction rows as the ingest pipeline leaves them."""
    files = {d: [{"path": sample["instructions"][d]}] for d in DOMAINS}
    domains = Domains({d: {"description": d, "sources": files[d]} for d in DOMAINS})
    return make_folder(clean(domains, CleanParams(seed=seed)), folder)


def document_rows(folder: Path, seed: int) -> FolderRef:
    """Openings of documents that no world's model was trained on, 500 a domain, as cleaned rows."""
    shares = dict.fromkeys(DOMAINS, 1 / 6)
    wanted = SampleParams(seed=seed, shares=shares, documents=3000)
    made = describe(make_folder(build(wanted), folder / "sample"))
    lines = Path(made["corpus"]).read_text(encoding="utf-8").splitlines()
    texts: dict[str, list[tuple[str, str]]] = {d: [] for d in DOMAINS}
    for document in map(json.loads, lines):
        first, *rest = document["text"].split()[:OPENING]
        texts[document["domain"]].append((first, " ".join(rest)))
    return cleaned(folder / "rows", texts)


def opened(samples: list[Sample]) -> list[Sample]:
    """The samples as the judge ``opening`` reads them."""
    return [s.model_copy(update={"text": " ".join(s.text.split()[:OPENING])}) for s in samples]


def findings(
    folder: Path,
    rows: FolderRef,
    params: ClassifierParams,
    samples: list[Sample],
    true: np.ndarray,
    seconds: dict[str, tuple[Array, Labelled]],
    seed: int,
) -> tuple[dict, tuple[Array, Labelled]]:
    """What each correction and audit makes of one judge, and what the judge itself says.

    ``seconds``: probabilities (n, k) of those who audit it, and their labelled rows.
    """
    ref = make_folder(train(rows, params, seed), folder)
    judgement, labelled = judge_samples(Classifier.load(ref), samples), Labelled.load(ref)
    p, ok = judgement.probabilities[judgement.ok], judgement.ok
    found: dict = {
        "on_rows": ref.metadata["accuracy"],
        "on_samples": float((p.argmax(axis=1) == true[ok]).mean()),
        "estimates": {},
    }
    for how in CORRECTIONS:
        e = estimate_shares(p, labelled, how, 500, seed)
        found["estimates"][how] = {k: getattr(e, k).tolist() for k in ("share", "low", "high")}
        if how == "pacc":
            found["shift"] = diagnose(judgement, labelled, e.share)
    chances = audit_chances(p, AUDITED)
    looked = np.random.default_rng(seed).random(len(p)) < chances
    for name, (said, rows_of_second) in seconds.items():
        seen = np.full_like(p, np.nan)
        seen[looked] = said[ok][looked]
        audit = Audit(seen, chances, rows_of_second)
        e = estimate_shares(p, labelled, "pacc", 500, seed, audit=audit)
        found["estimates"][AUDITS[name]] = {
            k: getattr(e, k).tolist() for k in ("share", "low", "high")
        }
    return found, (judgement.probabilities, labelled)


def drawn(corpus: Path, texts: list[str]) -> np.ndarray:
    """Domain numbers of what the model really drew, (n,).

    By a classifier trained on half of its own pretraining corpus. Separates the two parts of an
    error: the model's departure from its corpus, and the probe's.
    """
    documents = [json.loads(line) for line in corpus.read_text(encoding="utf-8").splitlines()]
    half = documents[::2]
    features = Features(20_000).fit([d["text"] for d in half])
    model = LogisticRegression(C=10, max_iter=300, class_weight="balanced")
    labels = [DOMAINS.index(d["domain"]) for d in half]
    model.fit(features.transform([d["text"] for d in half]), labels)
    return model.predict(features.transform(texts))


def variation(a: Sequence[float], b: Sequence[float]) -> float:
    """Total variation distance of two share vectors."""
    return float(np.abs(np.array(a) - np.array(b)).sum() / 2)


def with_interval(values: Sequence[float]) -> str:
    """Mean with a 95 % t interval over worlds."""
    mean, n = np.mean(values), len(values)
    if n < 2:
        return f"{mean:+.3f}"
    reach = t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n)
    return f"{mean:+.3f} ({mean - reach:+.3f} to {mean + reach:+.3f})"


def table(worlds: dict[tuple[str, int], dict]) -> None:
    """The models' departure from their corpora, and each judge and correction over all worlds."""
    for name in VECTORS:
        models = [variation(w["drawn"], w["truth"]) for (n, _), w in worlds.items() if n == name]
        if models:
            print(
                f"shares {name}: drawn {np.mean(models):.3f} from the corpus, {len(models)} models"
            )
    print(
        "\n| judge | right on rows | on samples | correction | from corpus (worst) | from drawn ",
        end="",
    )
    print("| holds corpus | nearer corpus than none | by (95 %) | nearer drawn | by (95 %) |")
    print("|" + " --- |" * 11)
    for judge in ("default", "weak", "opening"):
        found = [(w, w["judges"][judge]) for w in worlds.values()]
        rows, samples = (np.mean([f[k] for _, f in found]) for k in ("on_rows", "on_samples"))
        uncorrected = {goal: distances(found, "none", goal) for goal in ("truth", "drawn")}
        for how in found[0][1]["estimates"]:
            off = {goal: distances(found, how, goal) for goal in uncorrected}
            gains = [np.subtract(uncorrected[goal], off[goal]) for goal in uncorrected]
            held = np.mean([holds(f["estimates"][how], w["truth"]) for w, f in found])
            cells = [judge, f"{rows:.3f}", f"{samples:.3f}", how]
            cells += [f"{np.mean(off['truth']):.3f} ({max(off['truth']):.3f})"]
            cells += [f"{np.mean(off['drawn']):.3f}", f"{held:.2f}"]
            for gain in gains:
                cells += [f"{(gain > 0).sum()} of {len(gain)}", with_interval(gain)]
            print(f"| {' | '.join(cells if how != 'none' else [*cells[:7], '', '', '', ''])} |")


def table_by_shares(worlds: dict[tuple[str, int], dict]) -> None:
    """Mean distance from the corpus, and from what was drawn, for each share vector by itself."""
    shown = ("none", "pacc", *AUDITS.values())
    print(f"\n| judge | shares | {' | '.join(shown)} |")
    print("|" + " --- |" * (2 + len(shown)))
    for judge, name in itertools.product(("default", "weak", "opening"), VECTORS):
        found = [(w, w["judges"][judge]) for (n, _), w in worlds.items() if n == name]
        if not found:
            continue
        cells = []
        for how in shown:
            there = how in found[0][1]["estimates"]
            off = [np.mean(distances(found, how, g)) for g in ("truth", "drawn") if there]
            cells.append(", ".join(f"{value:.3f}" for value in off))
        print(f"| {judge} | {name} | {' | '.join(cells)} |")


def distances(found: list[tuple[dict, dict]], how: str, goal: str) -> list[float]:
    """Total variation of each world's estimate from its ``truth`` or from what was ``drawn``."""
    return [variation(f["estimates"][how]["share"], w[goal]) for w, f in found]


def holds(estimate: dict, truth: Sequence[float]) -> float:
    """Share of the domains whose interval holds the truth."""
    low, high = np.array(estimate["low"]), np.array(estimate["high"])
    return float(((low <= truth) & (truth <= high)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--documents", type=int, default=16000)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--n", type=int, default=8192)
    parser.add_argument("--done", action="store_true", help="show what is done, make nothing")
    args = parser.parse_args()
    worlds: dict[tuple[str, int], dict] = {}
    for seed, name in itertools.product(range(args.seeds), VECTORS):
        if args.done and not found_file(args.out, name, seed).is_file():
            continue
        args.out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(args.out / f"{name}-{seed}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:  # another process is at this world
            continue
        with lock:
            worlds[name, seed] = world(name, seed, args)
        lock.release()
        if not args.done:
            print(f"\nafter {len(worlds)} worlds:", flush=True)
            table(worlds)
    if args.done:
        table(worlds)
        table_by_shares(worlds)


if __name__ == "__main__":
    main()
