"""A real model probed with two judges: shares, intervals, agreement.

    python -m tests.benchmarks.probe_real MODEL_DIR DATA_DIR OUT_DIR [--n 2048 --tokens 128]

DATA_DIR holds a JSONL file a domain (alpaca columns). There is no known truth here: what can be
checked is whether two judges that share no part, a classifier trained on the rows and the
model's own likelihood of the domains' names, say the same of the same samples. Everything is
kept in OUT_DIR; a run that was stopped goes on.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers.probing import probe
from versatune.artifacts import FolderRef
from versatune.data.clean import clean
from versatune.data.config import CleanParams, Domains
from versatune.modeling.checkpoints import CheckpointRef
from versatune.probing import judges
from versatune.probing.audit import agreement
from versatune.probing.config import JudgeParams, ProbeParams
from versatune.probing.estimate import Audit
from versatune.probing.judges.base import About, Judgement, Labelled
from versatune.probing.probe import load_probe
from versatune.probing.result import knowledge_distribution
from versatune.work import make_folder

DESCRIPTIONS = {
    "law": "Law, courts, contracts, legal rights.",
    "medicine": "Medicine, health, diseases, drugs.",
    "finance": "Finance, banking, markets, accounting.",
    "science": "Physics, chemistry, biology, mathematics and other sciences.",
    "code": "Programs and programming.",
    "other": "Everything else: daily life, stories, sport, news, chat.",
}


def arguments(doc: str | None, n: int) -> argparse.ArgumentParser:
    """A parser that knows the model, the rows, where all is kept, and how much to draw."""
    parser = argparse.ArgumentParser(description=doc)
    for name in ("model", "data", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--n", type=int, default=n)
    parser.add_argument("--tokens", type=int, default=128)
    return parser


def cleaned(args: argparse.Namespace, **settings: Any) -> FolderRef:
    """The rows of the domains."""
    sources = {
        d: {"description": text, "sources": [{"path": str(args.data / f"{d}.jsonl")}]}
        for d, text in DESCRIPTIONS.items()
    }
    piece = clean(Domains(sources), CleanParams(seed=0, **settings))
    return make_folder(piece, args.out / "clean")


def probed(
    base: CheckpointRef, judge: FolderRef, folder: Path, params: ProbeParams
) -> tuple[dict[str, Any], Judgement]:
    """The knowledge distribution by a judge, and what it said of each sample."""
    made = probe(base, judge, folder, params)
    samples, judgement = load_probe(*made)
    facts = {**made[0].metadata, **made[1].metadata}
    found = knowledge_distribution(samples, judgement, judge, facts, params, base.name, {})
    return found, judgement


def main() -> None:
    parser = arguments(__doc__, 2048)
    parser.add_argument("--labelled", type=int, default=100)
    parser.add_argument("--start", default=None)
    args = parser.parse_args()
    rows, base, said = cleaned(args), CheckpointRef.of_folder(args.model), {}
    for kind in ("classifier", "likelihood"):
        likelihood = {"name_or_path": str(args.model), "labelled_per_domain": args.labelled}
        judge = JudgeParams.model_validate({"kind": kind, "likelihood": likelihood})
        piece = judges.train_judge(rows, judge, About(DESCRIPTIONS, keep=args.out / "answers"))
        ref = make_folder(piece, args.out / f"judge-{kind}")
        params = ProbeParams(
            seed=0,
            sampling={"max_new_tokens": args.tokens, "start": args.start},
            rounds={"samples_per_round": args.n, "min_rounds": 1, "max_rounds": 1},
            judge=judge,
        )
        found, said[kind] = probed(base, ref, args.out, params)
        print(
            f"\n{found['judge']}: accuracy {found['judge_accuracy']:.3f} on "
            f"{found['labelled_rows']} held-out rows; {found['n_samples']} samples, "
            f"{found['n_rejected']} without judgement; {found['samples']}"
        )
        print("| domain | share | 95 % interval | raw share |\n| --- | --- | --- | --- |")
        for name, d in found["domains"].items():
            low_high = f"{d['low']:.3f} to {d['high']:.3f}"
            print(f"| {name} | {d['share']:.3f} | {low_high} | {d['raw_share']:.3f} |")
        print("shift:", found["shift"])
        for warning in found["warnings"]:
            print("warning:", warning)
    both = said["classifier"].ok & said["likelihood"].ok
    first, second = (j.probabilities for j in said.values())
    everyone = Audit(second[both], np.ones(both.sum()), Labelled.oracle(len(DESCRIPTIONS)))
    alike = agreement(first[both], everyone)
    print(f"\nagreement of the likeliest domain: {alike['alike']:.3f}, kappa {alike['kappa']:.3f}")
    raw = [j.probabilities[both].mean(axis=0) for j in said.values()]
    print(
        f"total variation between the judges' raw shares: {np.abs(raw[0] - raw[1]).sum() / 2:.3f}"
    )


if __name__ == "__main__":
    main()
