"""Two projects in one world: that of a user who has rows of one domain, and of one who has all."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.rehearsal import PARTS, REAL, SELF, SHARES
from tests.benchmarks.rehearsal.start import Start, tokenized
from versatune.artifacts import write_json
from versatune.data.config import Domains
from versatune.data.own_rows import with_own_rows
from versatune.data.store import TokenizedSplit
from versatune.modeling.checkpoints import load_model, load_tokenizer
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

SAMPLES = 4096


class World:
    """What is trained and measured from one start.

    ``out``: for what is made here; finished runs are kept there. ``target``: the domain with rows.
    """

    def __init__(self, start: Start, out: Path, target: str) -> None:
        self.start, self.out, self.target = start, out, target
        self.names = list(start.domains)
        self._rehearse(
            Domains(
                {
                    target: start.domains[target],
                    SELF: {"description": "everything else", "sources": [{"self": True}]},
                }
            ),
            out / target,
        )
        self._first = load_model(start.base)
        self._before = self.losses(self._first)
        print(f"own texts: {self._before['own']:.3f} nats under the base model", flush=True)

    def _rehearse(self, domains: Domains, folder: Path) -> None:
        """What a user does who has rows of the target alone."""
        start = self.start
        rows, store = tokenized(domains, start.base, folder, start.ingest, start.lengths)
        params = ProbeParams.model_validate(
            {"seed": 0, "rounds": {"min_rounds": SAMPLES // 512, "max_rounds": SAMPLES // 512}}
        )
        sampler = ModelSampler(start.base, params.sampling)
        samples = make_folder(draw_samples(sampler, params), folder / "samples")
        background = Background(samples, SAMPLES)
        judge = make_folder(
            classifier.train(rows, params.judge.classifier, About(background=background)),
            folder / "judge",
        )
        judged = judge_in_rounds(
            sampler, samples, judge, params, lambda: classifier.Classifier.load(judge)
        )
        judgements = make_folder(judged, folder / "judgements")
        names = judge.metadata["domains"]
        settings = (domains.active, start.ingest, params.own_texts)
        texts = make_folder(own_texts(samples, judgements, names, *settings), folder / "own_texts")
        print(
            f"own texts: {texts.metadata['own']}, left out: {texts.metadata['rejected']}",
            flush=True,
        )
        piece = with_own_rows(store, texts, start.base.path, load_tokenizer, [SELF])
        self.few_rows = make_folder(piece, folder / "store")

    def run(self, arm: str, seed: int) -> list[dict[str, Any]]:
        """Train one arm, and measure every part of the way to it."""
        done = self.out / self.target / "runs" / f"{arm}-{seed}.json"
        if done.is_file():
            return json.loads(done.read_text())
        if arm == REAL:
            store, others = self.start.all_rows, [n for n in self.names if n != self.target]
            weights = {self.target: 0.7, **dict.fromkeys(others, 0.3 / len(others))}
        else:
            store = self.few_rows
            weights = {self.target: 1 - SHARES[arm], SELF: SHARES[arm]}
        params = self.start.train | {
            "strategy": {"name": "custom", "weights": weights},
            "seed": seed,
            "resume": "restart",
        }
        folder = done.with_suffix("")
        made = train(store, self.start.base, TrainParams.model_validate(params), folder=folder)
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
        write_between(self.start.base, trained, part, folder)
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
        real = heldout_losses(model, TokenizedSplit.load(self.start.all_rows, "report"), **how)
        own = heldout_losses(model, TokenizedSplit.load(self.few_rows, "report"), **how)
        return {
            **{name: loss.nats_per_token for name, loss in real.items()},
            "own": own[SELF].nats_per_token,
        }
