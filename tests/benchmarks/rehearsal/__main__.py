"""One target and nothing else: self-rehearsal and weights between base and trained, on real rows.

    python -m tests.benchmarks.rehearsal OUT_DIR [--seeds 3] [--arms a,b] [--target medicine]
        [--setting no_data]

A model that was adapted on a stratified mix (so that formats are learnt) is trained on ``target``
and on nothing else, or on the target and texts that it wrote itself in a share of the tokens. A
user of such a run has no row of the other five domains; the benchmark has, and measures on them
what was forgotten. Of each run the models between base and trained are measured too.

Without ``--setting`` this is the embedded sample and its small model (100 steps of adaptation,
then 120 at a learning rate of 5e-4, cosine). With it, the rows, base, training and seeds are those
that ``conf/results/SETTING`` declares.

``part_of_target_gain``: the target's fall in held-out loss, as a part of target-only training's;
``forgetting_avoided``: 1 - the other domains' summed change in loss as a part of that of
target-only training. Both are of report rows, which nothing was chosen by, with t intervals over
seeds. ``drift`` is KL(base || trained) per token on the model's own held-out texts. What is done is
kept in OUT_DIR; the table keeps the rows of other settings and targets.
"""

import argparse
from pathlib import Path

from tests.benchmarks.rehearsal import REAL, SHARES
from tests.benchmarks.rehearsal.start import of_sample, of_setting
from tests.benchmarks.rehearsal.table import parts_table, same_gain, table, write_table
from tests.benchmarks.rehearsal.world import World


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", default=",".join((*SHARES, REAL)))
    parser.add_argument("--target", help="medicine; a setting's own")
    parser.add_argument("--setting", help="one of conf/results that is of kind no_data")
    parser.add_argument("--table", type=Path, default=Path("docs/results/no_data.csv"))
    args = parser.parse_args()
    if args.setting:
        start, out = of_setting(args.setting, args.seeds), args.out / args.setting
    else:
        start, out = of_sample(args.out, args.seeds), args.out
    world = World(start, out, args.target or start.target)
    for seed in start.seeds:
        for arm in args.arms.split(","):
            world.run(arm, seed)
            print(f"{arm}, seed {seed}: done", flush=True)
    rows = table(world, world.done())
    write_table(args.table, rows)
    print(parts_table(rows), same_gain(rows), sep="\n\n")


if __name__ == "__main__":
    main()
