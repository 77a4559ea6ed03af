"""A chat model probed from its begin token and from the user's turn: which is nearer to its skill?

    python -m tests.benchmarks.probe_start MODEL_DIR DATA_DIR OUT_DIR [--n 512 --tokens 128]

DATA_DIR holds a JSONL file a domain (alpaca columns). What the model can do is measured on held-out
rows: the nats it needs for a token of their answers. For each start: the shares with their
intervals, the judge's own check (``shift``: how unlike the labelled rows the samples are, 0 to 1),
and Spearman's correlation of the shares with the negated nats. Everything is kept in OUT_DIR.
"""

from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

from tests.benchmarks.probe_real import DESCRIPTIONS, arguments, cleaned, probed
from versatune.artifacts import FolderRef
from versatune.data.config import TokenizeParams
from versatune.data.store import TokenizedSplit
from versatune.data.tokenize import tokenize
from versatune.modeling.checkpoints import CheckpointRef, load_model, load_tokenizer
from versatune.modeling.heldout import heldout_losses
from versatune.probing import judges
from versatune.probing.config import JudgeParams, ProbeParams
from versatune.probing.judges.base import About, Background
from versatune.probing.probe import draw_samples
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


def probed_from(
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
    about = About(DESCRIPTIONS, keep=folder / "answers", background=Background(drawn, args.n))
    judge = make_folder(judges.train_judge(rows, JudgeParams(), about), folder / "judge")
    return probed(base, judge, folder, params)[0]


def main() -> None:
    parser = arguments(__doc__, 512)
    parser.add_argument("--rows", type=int, default=64)
    args = parser.parse_args()
    rows, base = cleaned(args, max_reject_rate=0.15), CheckpointRef.of_folder(args.model)
    nats = skills(base, rows, args.out, args.rows)
    found = {start: probed_from(base, rows, args.out, start, args) for start in STARTS}
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
