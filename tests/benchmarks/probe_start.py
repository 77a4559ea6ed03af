"""A chat model probed from its begin token and from the user's turn: which is nearer to its skill?

    python -m tests.benchmarks.probe_start MODEL_DIR DATA_DIR OUT_DIR [--n 512 --tokens 128]

DATA_DIR holds a JSONL file a domain (alpaca columns). What the model can do is measured on held-out
rows: the nats it needs for a token of their answers. For each start: the shares with their
intervals, the judge's own check (``shift``: how unlike the labelled rows the samples are, 0 to 1),
and Spearman's correlation of the shares with the negated nats. Everything is kept in OUT_DIR.
"""

import argparse
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

from tests.benchmarks.probe_real import DESCRIPTIONS
from tests.helpers.probing import probe
from versatune.artifacts import FolderRef
from versatune.data.clean import clean
from versatune.data.config import CleanParams, Domains, TokenizeParams
from versatune.data.store import TokenizedSplit
from versatune.data.tokenize import tokenize
from versatune.modeling.checkpoints import CheckpointRef, load_model, load_tokenizer
from versatune.modeling.heldout import heldout_losses
from versatune.probing import judges
from versatune.probing.config import JudgeParams, ProbeParams
from versatune.probing.judges.base import Background
from versatune.probing.probe import draw_samples, load_probe
from versatune.probing.result import knowledge_distribution
from versatune.samplers.make import make_sampler
from versatune.work import make_folder

STARTS = ("bos", "user")


def skills(base: CheckpointRef, rows: FolderRef, out: Path, n: int) -> dict[str, float]:
    """Nats a token of the answers of ``n`` held-out rows a domain, by domain."""
    lengths = TokenizeParams(max_length=512)
    store = make_folder(tokenize(rows, base.path, load_tokenizer, lengths), out / "tokenized")
    split = TokenizedSplit.load(store, "report")
    measured = heldout_losses(load_model(base), split, rows_per_domain=n, batch_tokens=None)
    return {name: loss.nats_per_token for name, loss in measured.items()}


def probed(
    base: CheckpointRef, rows: FolderRef, out: Path, start: str, args: Any
) -> dict[str, Any]:
    """The knowledge distribution of samples that begin with ``start``."""
    params = ProbeParams.model_validate(
        {
            "seed": 0,
            "sampling": {"max_new_tokens": args.tokens, "start": start, "batch_size": 128},
            "rounds": {"samples_per_round": args.n, "min_rounds": 1, "max_rounds": 1},
        }
    )
    folder = out / start
    drawn = make_folder(
        draw_samples(make_sampler(base, params.sampling), params), folder / "samples"
    )
    piece = judges.train_judge(
        rows, JudgeParams(), DESCRIPTIONS, 0, folder / "answers", Background(drawn, args.n)
    )
    judge = make_folder(piece, folder / "judge")
    made = probe(base, judge, folder, params)
    facts = {**made[0].metadata, **made[1].metadata}
    return knowledge_distribution(*load_probe(*made), judge, facts, params, base.name, {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--n", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rows", type=int, default=64)
    args = parser.parse_args()
    sources = {
        d: {"description": text, "sources": [{"path": str(args.data / f"{d}.jsonl")}]}
        for d, text in DESCRIPTIONS.items()
    }
    settings = CleanParams(seed=0, max_reject_rate=0.15)
    rows = make_folder(clean(Domains(sources), settings), args.out / "clean")
    base = CheckpointRef.of_folder(args.model)
    nats = skills(base, rows, args.out, args.rows)
    found = {start: probed(base, rows, args.out, start, args) for start in STARTS}
    print("| domain | nats a token | " + " | ".join(STARTS) + " |\n| --- | --- | --- | --- |")
    for name in nats:
        each = [found[s]["domains"][name] for s in STARTS]
        shares = [f"{d['share']:.3f} ({d['low']:.3f} to {d['high']:.3f})" for d in each]
        print(f"| {name} | {nats[name]:.2f} | {' | '.join(shares)} |")
    for start in STARTS:
        made = found[start]
        shares = [made["domains"][name]["share"] for name in nats]
        rank = spearmanr(shares, [-n for n in nats.values()]).statistic
        print(
            f"{start}: shift {made['shift']}, doubts {sorted(made.get('doubts', {}))}, "
            f"{made['n_rejected']} of {made['n_samples']} without judgement, begins with "
            f"{made['samples']['begin_with']!r}; Spearman's correlation with skill {rank:+.2f}"
        )


if __name__ == "__main__":
    main()
