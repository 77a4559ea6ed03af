"""The probe against base models whose shares are known.

    python tests/benchmarks/truth_checks.py OUT_DIR [--documents 8000 --epochs 3 --batch 40]

For each of three share vectors and each seed: the embedded sample's corpus is made with those
shares, a base model is pretrained on it, the instruction rows are cleaned as the ingest pipeline
cleans them, two judges are trained (the default one, and one that sees 150 features and errs),
and the estimators are compared by total variation with the truth, and by how often their 95 %
intervals hold it. What is done is kept in OUT_DIR and found again.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from versatune.data.clean import clean
from versatune.data.config import CleanParams, Domains
from versatune.modeling.base import BaseModelParams, make_base
from versatune.probing.config import ClassifierParams, SamplingParams
from versatune.probing.estimate import estimate_shares
from versatune.probing.judges.base import Labelled
from versatune.probing.judges.classifier import Classifier, Features, train
from versatune.probing.probe import judge_samples
from versatune.probing.sampling import ModelSampler, SampleStore
from versatune.probing.shift import diagnose
from versatune.sample.build import build
from versatune.sample.config import SampleParams

DOMAINS = ("law", "medicine", "finance", "science", "code", "other")
VECTORS = {
    "default": (0.08, 0.14, 0.10, 0.20, 0.18, 0.30),
    "code": (0.03, 0.06, 0.04, 0.07, 0.55, 0.25),
    "law": (0.40, 0.05, 0.25, 0.05, 0.05, 0.20),
}
JUDGES = {"default": ClassifierParams(), "weak": ClassifierParams(max_features=150)}
CORRECTIONS = ("none", "pacc", "acc", "em")


def world(name: str, seed: int, args: argparse.Namespace) -> dict:
    """Make one base model, probe it, and return each judge's and estimator's findings."""
    folder = args.out / f"{name}-{seed}"
    done = folder / "found.json"
    if done.is_file():
        return json.loads(done.read_text())
    shares = dict(zip(DOMAINS, VECTORS[name], strict=True))
    sample = build(
        SampleParams(folder=folder / "sample", seed=seed, shares=shares, documents=args.documents)
    )
    pretraining = {"num_train_epochs": args.epochs, "max_length": 512, "seed": seed}
    pretraining["per_device_train_batch_size"] = args.batch
    base = make_base(
        BaseModelParams(folder=folder / "base", pretrain=pretraining), Path(sample["corpus"])
    )
    sources = {
        d: {"description": d, "sources": [{"path": sample["instructions"][d]}]} for d in DOMAINS
    }
    rows = clean(Domains(sources), CleanParams(folder=folder / "clean", seed=seed))
    sampler = ModelSampler(base, SamplingParams(max_new_tokens=64))
    store = SampleStore.open(folder / "samples", sampler, seed, 256)
    samples = store.first(args.n)
    truth = np.array([sample["shares"][d] for d in DOMAINS])
    said = drawn_shares(Path(sample["corpus"]), [s.text for s in samples])
    found: dict = {"truth": truth.tolist(), "drawn": said, "judges": {}}
    for judge, params in JUDGES.items():
        ref = train(folder / f"judge-{judge}", rows, params, seed)
        judgement = judge_samples(Classifier.load(ref), samples)
        labelled = Labelled.load(ref)
        p = judgement.probabilities[judgement.ok]
        np.savez(folder / f"{judge}.npz", p=p, q=labelled.probabilities, y=labelled.labels)
        entry: dict = {"accuracy": ref.facts["accuracy"], "estimates": {}}
        for how in CORRECTIONS:
            e = estimate_shares(p, labelled, how, 500, seed)
            entry["estimates"][how] = {k: getattr(e, k).tolist() for k in ("share", "low", "high")}
            if how == "pacc":
                entry["shift"] = diagnose(judgement, labelled, e.share)
        found["judges"][judge] = entry
    done.write_text(json.dumps(found, indent=1))
    return found


def drawn_shares(corpus: Path, texts: list[str]) -> list[float]:
    """What the model really drew, by a classifier trained on half of its own pretraining corpus.

    Separates the two parts of an error: the model's departure from its corpus, and the probe's.
    """
    documents = [json.loads(line) for line in corpus.read_text(encoding="utf-8").splitlines()]
    half = documents[::2]
    features = Features(20_000).fit([d["text"] for d in half])
    model = LogisticRegression(C=10, max_iter=300)
    model.fit(features.transform([d["text"] for d in half]), [d["domain"] for d in half])
    labels = model.predict(features.transform(texts))
    return [float((labels == d).mean()) for d in DOMAINS]


def variation(a: list[float], b: list[float]) -> float:
    """Total variation distance of two share vectors."""
    return float(np.abs(np.array(a) - np.array(b)).sum() / 2)


def table(found: dict[str, list[dict]]) -> None:
    """Mean total variation, mean coverage, and in how many models it beats no correction."""
    for name, worlds in found.items():
        away = np.mean([variation(w["drawn"], w["truth"]) for w in worlds])
        print(f"shares {name}: what the models drew is {away:.3f} away from their corpus")
    print("\n`drawn`: distance from what the model really drew; the others from its corpus.\n")
    print(
        "| judge | accuracy | shares | estimator | variation | worst | drawn | coverage | better |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for judge in JUDGES:
        for name, worlds in [*found.items(), ("all", [w for ws in found.values() for w in ws])]:
            entries = [w["judges"][judge] for w in worlds]
            accuracy = np.mean([e["accuracy"] for e in entries])
            truths = [w["truth"] for w in worlds]
            raw = [
                variation(e["estimates"]["none"]["share"], t)
                for e, t in zip(entries, truths, strict=True)
            ]
            for how in CORRECTIONS:
                ests = [e["estimates"][how] for e in entries]
                tv = [variation(e["share"], t) for e, t in zip(ests, truths, strict=True)]
                inside = np.mean(
                    [
                        np.mean((np.array(e["low"]) <= t) & (np.array(e["high"]) >= t))
                        for e, t in zip(ests, truths, strict=True)
                    ]
                )
                drawn = [
                    variation(e["share"], w["drawn"]) for e, w in zip(ests, worlds, strict=True)
                ]
                wins = sum(a < b for a, b in zip(tv, raw, strict=True))
                print(
                    f"| {judge} | {accuracy:.3f} | {name} | {how} | {np.mean(tv):.3f} | "
                    f"{max(tv):.3f} | {np.mean(drawn):.3f} | {inside:.2f} | {wins} of {len(tv)} |"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--documents", type=int, default=8000)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--batch", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--n", type=int, default=2048)
    args = parser.parse_args()
    found: dict[str, list[dict]] = {name: [] for name in VECTORS}
    for seed in range(args.seeds):
        for name in VECTORS:
            found[name].append(world(name, seed, args))
            print(f"done: {name}, seed {seed}", flush=True)
    table(found)


if __name__ == "__main__":
    main()
