"""A setting's world, made once: rows, base model, tokenised store, references, held-out losses."""

import codecs
import json
import random
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.benchmarks.settings.declared import Adapted, Base, Declared, Given, Rows, Run, Setting
from versatune.artifacts import FolderRef, write_atomic
from versatune.data.clean import clean
from versatune.data.store import Split, TokenizedSplit
from versatune.data.tokenize import tokenize
from versatune.demo.base_model import BaseModelParams, make_base, pretrained_here
from versatune.demo.build import build, instruction_rows
from versatune.demo.config import SampleParams
from versatune.demo.facts import Fact, load_facts, load_templates
from versatune.mixing.traces import traces_of
from versatune.modeling.checkpoints import CheckpointRef, load_model, load_tokenizer
from versatune.modeling.heldout import heldout_losses
from versatune.training import TrainParams, train
from versatune.training.reference import reference_losses, reference_runs
from versatune.work import ParallelParams, Pieces, make_folder, make_pieces, not_needed

PHRASINGS = 4
FACTS = Path("data/01_raw/samples")
BUDGET = 0.1
"""The default `references.budget` of conf/base."""


@dataclass(frozen=True)
class World:
    """What all runs of a setting start from."""

    setting: Setting
    run: Run
    store: FolderRef
    base: CheckpointRef

    @property
    def domains(self) -> list[str]:
        return list(self.store.metadata["domains"])

    @property
    def detected(self) -> dict[str, float] | None:
        """The base's shares of the domains: those of its corpus, which the probe estimates.

        None where the base is a given model.
        """
        return None if isinstance(self.setting.base, Given) else dict(SampleParams().shares)

    @property
    def initial(self) -> dict[str, float]:
        """Shares to start from: the base's, or those of the data, as where a probe is in doubt."""
        rows = self.store.metadata["train"]
        total = sum(entry["supervised_tokens"] for entry in rows.values())
        return self.detected or {n: rows[n]["supervised_tokens"] / total for n in self.domains}

    @cached_property
    def references(self) -> dict[str, Any]:
        """Measured on first use; kept run by run."""
        params = self.run.references
        folder = "references" if params.budget is None else "references_budget"
        root = self.run.data / (folder if params.mixes else "references_alone")
        rows = make_folder(not_needed(), root / "rows")
        pieces = reference_runs(self.store, rows, self.base, params, self.run.train)
        made = make_pieces(Pieces(pieces, ParallelParams(workers=1)), root / "runs")
        return reference_losses(self.store, rows, self.base, params, self.run.train, made)

    @cached_property
    def budgeted(self) -> "World":
        """The same with runs on mixes alone, within the default budget."""
        params = self.run.references.model_copy(update={"mode": "mixes", "budget": BUDGET})
        return replace(self, run=self.run.model_copy(update={"references": params}))

    @cached_property
    def with_references(self) -> "World":
        """The same with runs on single domains, where the setting makes runs on mixes alone."""
        params = self.run.references
        if params.mode == "measure":
            return self
        params = params.model_copy(update={"mode": "measure", "mixes": 0, "transfer": 0.0})
        return replace(self, run=self.run.model_copy(update={"references": params}))

    @property
    def known_references(self) -> dict[str, float]:
        return {n: e["nats_per_token"] for n, e in self.references["domains"].items()}

    @property
    def traces(self) -> dict[str, Any] | None:
        return traces_of(self.references)

    def before(self, split: Split) -> dict[str, float]:
        """The base model's losses on a split's rows; measured once."""
        file = self.run.data / f"before_{split}.json"
        known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if known.get("base") != self.base.fingerprint:
            losses = self.measured(self.base, split)
            known = {"base": self.base.fingerprint, "losses": losses}
            write_atomic(file, json.dumps(known))
        found: dict[str, float] = known["losses"]
        return found

    def measured(self, model: CheckpointRef, split: Split) -> dict[str, float]:
        """Nats per token by domain, of the setting's rows of a split."""
        base = self.setting.base
        found = heldout_losses(
            load_model(model, dtype=self.run.train.dtype),
            TokenizedSplit.load(self.store, split),
            rows_per_domain=base.report_rows if isinstance(base, Given) else None,
            batch_tokens=None,
            progress=False,
        )
        return {domain: h.nats_per_token for domain, h in found.items()}


def make_world(declared: Declared) -> World:
    """Make what is not there yet; a killed call goes on."""
    setting, run = declared.setting, Run.of(declared)
    assert setting.base is not None
    if isinstance(setting.base, Given):
        base = CheckpointRef.of_folder(declared.given["model"])
    else:
        write_rows(setting, run.seed, run.data / "rows")
        base = _pretrained(setting.base, run)
    make_folder(clean(run.domains, run.ingest), run.data / "clean")
    cleaned = FolderRef.load(run.data / "clean")
    store = make_folder(
        tokenize(cleaned, base.path, load_tokenizer, run.tokenize), run.data / "store"
    )
    if setting.base.adapted is not None:
        base = _adapted(setting.base.adapted, run, store, base)
    return World(setting, run, store, base)


def _pretrained(how: Base, run: Run) -> CheckpointRef:
    sample = SampleParams(seed=run.seed, documents=how.documents, source=FACTS)
    make_folder(build(sample), run.data / "sample")
    pretrain = how.pretrain.model_copy(update={"seed": run.seed})
    made = make_base(BaseModelParams(pretrain=pretrain), run.data / "sample" / "corpus.jsonl")
    assert not isinstance(made, CheckpointRef)
    make_folder(made, run.data / "base")
    return pretrained_here(run.data / "base")


def _adapted(how: Adapted, run: Run, store: FolderRef, base: CheckpointRef) -> CheckpointRef:
    strategy: dict[str, Any] = {"name": "proportional"}
    if how.shares is not None:
        strategy = {"name": "custom", "weights": how.shares}
    steps = {"rounds": 1, "steps_per_round": how.steps, "seed": run.seed, "strategy": strategy}
    if how.learning_rate is not None:
        steps["learning_rate"] = how.learning_rate
    params = TrainParams.model_validate(run.train.model_dump() | steps)
    made = train(store, base, params, folder=run.data / "adapted")
    return CheckpointRef.of_folder(made.model_ref.path)


def write_rows(setting: Setting, seed: int, folder: Path) -> None:
    """``<domain>.jsonl`` for every domain of the setting, alpaca rows."""
    templates = load_templates(FACTS)
    for domain, wanted in setting.rows.items():
        rng = random.Random(f"{seed}/{domain}/rows")
        facts = load_facts(FACTS, domain)
        rng.shuffle(facts)
        rows = altered(facts, wanted, templates[domain], rng)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path = folder / f"{domain}.jsonl"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_atomic(path, text)


def altered(
    facts: list[Fact], wanted: Rows, relations: dict[str, Any], rng: random.Random
) -> list[dict[str, str]]:
    """The rows of the first facts, some with the answer of another fact of the same relation."""
    chosen = facts[: wanted.facts]
    if len(chosen) < wanted.facts:
        raise ValueError(f"{wanted.facts} facts asked for, and there are {len(facts)}")
    rows: list[dict[str, str]] = []
    for fact in chosen:
        right = instruction_rows([fact], relations, PHRASINGS)
        others = [f for f in facts if f.relation == fact.relation and f != fact]
        for number, row in enumerate(right):
            if rng.random() < wanted.wrong:
                told = instruction_rows([rng.choice(others)], relations, PHRASINGS)
                row = row | {"output": told[number]["output"]}
            if wanted.cipher:
                row = row | {"output": codecs.encode(row["output"], "rot13")}
            rows.append(row)
    rng.shuffle(rows)
    return rows
