"""One target and nothing else: self-rehearsal and weights between base and trained, on real rows.

    python -m tests.benchmarks.rehearsal OUT_DIR [--seeds 3] [--arms a,b] [--target medicine]

The embedded sample's small model, adapted for 100 steps on a stratified mix (so that formats are
learnt), is trained for 120 steps on ``target`` (learning rate 5e-4, cosine) and on nothing else, or
on the target and texts that the model wrote itself in a share of the tokens. A user of such a run
has no row of the other five domains; the benchmark has, and measures on them what was forgotten.
Of each run the models between base and trained are measured too.

``part_of_target_gain``: the target's fall in held-out loss, as a part of target-only training's;
``forgetting_avoided``: 1 - the other domains' summed change in loss as a part of that of
target-only training. Both are of report rows, which nothing was chosen by, with t intervals over
seeds. ``drift`` is KL(base || trained) per token on the model's own held-out texts. What is done is
kept in OUT_DIR.
"""

import argparse
import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from versatune.artifacts import FolderRef, write_json
from versatune.data.clean import clean
from versatune.data.config import CleanParams, Domains, TokenizeParams
from versatune.data.own_rows import with_own_rows
from versatune.data.store import TokenizedSplit
from versatune.data.tokenize import tokenize
from versatune.demo.base_model import BaseModelParams, make_base, pretrained_here
from versatune.demo.build import build, describe
from versatune.demo.config import SampleParams
from versatune.intervals import mean_stderr, t_interval
from versatune.modeling.checkpoints import CheckpointRef, load_model, load_tokenizer
from versatune.modeling.drift import text_drift
from versatune.modeling.heldout import heldout_losses
from versatune.modeling.interpolate import write_between
from versatune.probing.config import ProbeParams
from versatune.probing.judges import classifier
from versatune.probing.judges.base import About, Background
from versatune.probing.own_texts import own_texts
from versatune.probing.probe import draw_samples, judge_in_rounds
from versatune.samplers.local import ModelSampler
from versatune.training import TrainParams, train
from versatune.work import make_folder

SELF = "other"
"""The one domain without rows."""
PARTS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SHARES = {"target_only": 0.0, "self_0.3": 0.3, "self_0.1": 0.1, "self_0.5": 0.5}
"""Arms, and the share of the model's own texts in each."""
REAL = "real_0.3"
"""The arm that has rows of the other domains, in equal shares of 0.3: what data would be worth."""
SAMPLES = 4096
TRAIN: dict[str, Any] = {
    "rounds": 4,
    "steps_per_round": 30,
    "learning_rate": 5e-4,
    "max_length": 512,
    "per_device_train_batch_size": 4,
    "heldout_rows_per_domain": 32,
    "resume": "restart",
}
COLUMNS = (
    *("target", "arm", "own_share", "part", "part_of_target_gain", "part_of_target_gain_low"),
    *("part_of_target_gain_high", "forgetting_avoided", "forgetting_avoided_low"),
    *("forgetting_avoided_high", "least_other_change", "drift", "own_loss_change", "n_seeds"),
)


def configuration() -> dict[str, Any]:
    """The project's own defaults, seed 0."""
    found: dict[str, Any] = {}
    for file in sorted(Path("conf/base").glob("parameters_*.yml")):
        text = file.read_text(encoding="utf-8").replace("${globals:seed}", "0")
        found |= yaml.safe_load(text) or {}
    return found


class World:
    """The sample, its base model, and two projects on it: one with all rows, one with few."""

    def __init__(self, out: Path, target: str) -> None:
        self.out, self.target, conf = out, target, configuration()
        made = make_folder(build(SampleParams.model_validate(conf["sample"])), out / "sample")
        sample = describe(made)
        piece = make_base(
            BaseModelParams.model_validate(conf["base_model"]), Path(sample["corpus"])
        )
        raw = pretrained_here(make_folder(piece, out / "base").path)
        self.names = list(sample["instructions"])
        self.all_rows = self._store(
            Domains({n: _domain(n, sample, n) for n in self.names}), raw, out
        )
        adapting = TrainParams.model_validate(
            {
                **conf["train"],
                "strategy": {"name": "proportional"},
                "rounds": 2,
                "resume": "restart",
            }
        )
        trained = train(self.all_rows, raw, adapting, folder=out / "adapted")
        self.base = CheckpointRef.from_manifest(trained.model_ref.path, "adapted")
        self._rehearse(Domains({target: _domain(target, sample), SELF: _own()}), out / target)
        self._first = load_model(self.base)
        self._before = self.losses(self._first)

    def _store(self, domains: Domains, base: CheckpointRef, folder: Path) -> FolderRef:
        self.rows = make_folder(clean(domains, CleanParams(seed=0)), folder / "clean")
        lengths = TokenizeParams(max_length=256)
        piece = tokenize(self.rows, base.path, load_tokenizer, lengths)
        return make_folder(piece, folder / "tokenized")

    def _rehearse(self, domains: Domains, folder: Path) -> None:
        """What a user does who has rows of the target alone."""
        store = self._store(domains, self.base, folder)
        params = ProbeParams.model_validate(
            {"seed": 0, "rounds": {"min_rounds": SAMPLES // 512, "max_rounds": SAMPLES // 512}}
        )
        sampler = ModelSampler(self.base, params.sampling)
        samples = make_folder(draw_samples(sampler, params), folder / "samples")
        background = Background(samples, SAMPLES)
        judge = make_folder(
            classifier.train(self.rows, params.judge.classifier, About(background=background)),
            folder / "judge",
        )
        judged = judge_in_rounds(
            sampler, samples, judge, params, lambda: classifier.Classifier.load(judge)
        )
        judgements = make_folder(judged, folder / "judgements")
        names = judge.metadata["domains"]
        settings = (domains.active, CleanParams(seed=0), params.own_texts)
        texts = make_folder(own_texts(samples, judgements, names, *settings), folder / "own_texts")
        print(
            f"own texts: {texts.metadata['own']}, left out: {texts.metadata['rejected']}",
            flush=True,
        )
        piece = with_own_rows(store, texts, self.base.path, load_tokenizer, [SELF])
        self.few_rows = make_folder(piece, folder / "store")

    def run(self, arm: str, seed: int) -> list[dict[str, Any]]:
        """Train one arm, and measure every part of the way to it."""
        done = self.out / self.target / "runs" / f"{arm}-{seed}.json"
        if done.is_file():
            return json.loads(done.read_text())
        if arm == REAL:
            store, others = self.all_rows, [n for n in self.names if n != self.target]
            weights = {self.target: 0.7, **dict.fromkeys(others, 0.3 / len(others))}
        else:
            store = self.few_rows
            weights = {self.target: 1 - SHARES[arm], SELF: SHARES[arm]}
        params = {**TRAIN, "strategy": {"name": "custom", "weights": weights}, "seed": seed}
        folder = done.with_suffix("")
        made = train(store, self.base, TrainParams.model_validate(params), folder=folder)
        between = done.with_suffix(".between")
        found = [self.measure(made.model_ref.path, part, between) for part in PARTS]
        shutil.rmtree(between)
        write_json(done, found)
        return found

    def done(self) -> dict[tuple[str, int], list[dict[str, Any]]]:
        """What was measured in this run and before, by arm and seed."""
        found = {}
        for file in sorted((self.out / self.target / "runs").glob("*.json")):
            arm, _, seed = file.stem.rpartition("-")
            found[arm, int(seed)] = json.loads(file.read_text())
        return found

    def measure(self, trained: Path, part: float, folder: Path) -> dict[str, Any]:
        """Changes since the base model of every number, ``part`` of the way to ``trained``.

        ``folder``: for the model that is measured.
        """
        write_between(self.base, trained, part, folder)
        model = load_model(folder)
        before, after = self._before, self.losses(model)
        own = TokenizedSplit.load(self.few_rows, "report")
        texts = [
            np.asarray(own.dataset[i]["input_ids"], dtype=np.int64)
            for i in own.rows(own.domains.index(SELF))
        ]
        nats, tokens = text_drift(self._first, model, texts).sum(axis=0)
        return {
            "part": part,
            "changes": {name: after[name] - before[name] for name in before},
            "drift": float(nats / tokens),
        }

    def losses(self, model: Any) -> dict[str, float]:
        """On the report rows of all six domains, and on own texts as ``own``."""
        how: dict[str, Any] = {"rows_per_domain": None, "batch_tokens": None, "progress": False}
        real = heldout_losses(model, TokenizedSplit.load(self.all_rows, "report"), **how)
        own = heldout_losses(model, TokenizedSplit.load(self.few_rows, "report"), **how)
        return {
            **{name: loss.nats_per_token for name, loss in real.items()},
            "own": own[SELF].nats_per_token,
        }


def _domain(name: str, sample: dict[str, Any], *_: str) -> dict[str, Any]:
    return {
        "description": name,
        "sources": [{"path": sample["instructions"][name]}],
        "evaluation": [{"path": sample["evaluation"][name]}],
    }


def _own() -> dict[str, Any]:
    return {"description": "everything else", "sources": [{"self": True}]}


def table(world: World, runs: dict[tuple[str, int], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row an arm and part, over the seeds that were run with target-only training too."""
    others = [name for name in world.names if name != world.target]
    whole = {s: of[-1]["changes"] for (arm, s), of in runs.items() if arm == "target_only"}
    gain = -np.mean([of[world.target] for of in whole.values()])
    forgotten = np.mean([sum(of[n] for n in others) for of in whole.values()])
    rows = []
    for arm in (*SHARES, REAL):
        seeds = sorted(s for a, s in runs if a == arm and s in whole)
        for number, part in enumerate(PARTS if seeds else ()):
            found = [runs[arm, seed][number] for seed in seeds]
            changes = [of["changes"] for of in found]
            sums = np.array([sum(of[n] for n in others) for of in changes])
            rows.append(
                {
                    "target": world.target,
                    "arm": arm,
                    "own_share": SHARES.get(arm, 0.0),
                    "part": part,
                    **_spread("part_of_target_gain", [-of[world.target] / gain for of in changes]),
                    **_spread("forgetting_avoided", (1 - sums / forgotten).tolist()),
                    # A rise in loss is a loss of ability: the least change is the largest rise.
                    "least_other_change": round(
                        float(np.mean([-max(of[n] for n in others) for of in changes])), 4
                    ),
                    "drift": round(float(np.mean([of["drift"] for of in found])), 4),
                    "own_loss_change": round(float(np.mean([of["own"] for of in changes])), 4),
                    "n_seeds": len(seeds),
                }
            )
    return rows


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table of the page, from rows as the CSV has them."""
    lines = [
        "| arm | part of the way | part of the target's gain | forgetting avoided "
        "| least other change | drift | own texts' loss | seeds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        gain, avoided = (
            _shown(row, name) for name in ("part_of_target_gain", "forgetting_avoided")
        )
        lines.append(
            f"| `{row['arm']}` | {float(row['part']):g} | {gain} | {avoided} "
            f"| {float(row['least_other_change']):+.3f} | {float(row['drift']):.3f} "
            f"| {float(row['own_loss_change']):+.3f} | {row['n_seeds']} |"
        )
    return "\n".join(lines)


def _shown(row: dict[str, Any], name: str) -> str:
    low, high = float(row[f"{name}_low"]), float(row[f"{name}_high"])
    interval = "" if np.isnan(low) else f" ({low:.2f} to {high:.2f})"
    return f"{float(row[name]):.2f}{interval}"


def _spread(name: str, values: Sequence[float]) -> dict[str, float]:
    mean, stderr = mean_stderr(np.asarray(values, dtype=np.float64))
    low, high = t_interval(mean, stderr, len(values))
    return {name: round(mean, 3), f"{name}_low": round(low, 3), f"{name}_high": round(high, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", default=",".join((*SHARES, REAL)))
    parser.add_argument("--target", default="medicine")
    parser.add_argument("--table", type=Path, default=Path("docs/results/no_data.csv"))
    args = parser.parse_args()
    world = World(args.out, args.target)
    for seed in range(args.seeds):
        for arm in args.arms.split(","):
            world.run(arm, seed)
            print(f"{arm}, seed {seed}: done", flush=True)
    with args.table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table(world, world.done()))
    print(markdown(table(world, world.done())))


if __name__ == "__main__":
    main()
