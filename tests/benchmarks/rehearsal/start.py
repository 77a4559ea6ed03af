"""What all runs start from: rows, a base model, and how it is trained.

That is the embedded sample and its small model, or the world of a setting that is declared in
``conf/results``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks.settings.declared import Declared
from tests.benchmarks.settings.world import make_world
from versatune.artifacts import FolderRef
from versatune.data.clean import clean
from versatune.data.config import CleanParams, DomainConfig, Domains, TokenizeParams
from versatune.data.tokenize import tokenize
from versatune.demo.base_model import BaseModelParams, make_base, pretrained_here
from versatune.demo.build import build, describe
from versatune.demo.config import SampleParams
from versatune.modeling.checkpoints import CheckpointRef, load_tokenizer
from versatune.training import TrainParams, train
from versatune.work import make_folder

SAMPLE = "sample"
"""The name of the embedded sample's world."""
TRAIN: dict[str, Any] = {
    "rounds": 4,
    "steps_per_round": 30,
    "learning_rate": 5e-4,
    "max_length": 512,
    "per_device_train_batch_size": 4,
    "heldout_rows_per_domain": 32,
}
"""Training in the sample's world."""


@dataclass(frozen=True)
class Start:
    """A world before anything is trained in it.

    ``domains``: each with its rows; ``all_rows``: those of all domains, tokenised; ``train``:
    parameters of training, the strategy left out; ``seeds``: of runs; ``target``: the domain that
    has rows, where none is named.
    """

    name: str
    domains: Mapping[str, DomainConfig]
    all_rows: FolderRef
    base: CheckpointRef
    ingest: CleanParams
    lengths: TokenizeParams
    train: dict[str, Any]
    seeds: list[int]
    target: str = "medicine"


def tokenized(
    domains: Domains,
    base: CheckpointRef,
    folder: Path,
    ingest: CleanParams,
    lengths: TokenizeParams,
) -> tuple[FolderRef, FolderRef]:
    """The clean rows, and those rows tokenised."""
    rows = make_folder(clean(domains, ingest), folder / "clean")
    piece = tokenize(rows, base.path, load_tokenizer, lengths)
    return rows, make_folder(piece, folder / "tokenized")


def of_sample(out: Path, seeds: int) -> Start:
    """The embedded sample; its small model is adapted for 100 steps on a stratified mix."""
    conf = _defaults()
    made = make_folder(build(SampleParams.model_validate(conf["sample"])), out / "sample")
    sample = describe(made)
    piece = make_base(BaseModelParams.model_validate(conf["base_model"]), Path(sample["corpus"]))
    raw = pretrained_here(make_folder(piece, out / "base").path)
    domains = Domains(
        {
            name: {
                "description": name,
                "sources": [{"path": path}],
                "evaluation": [{"path": sample["evaluation"][name]}],
            }
            for name, path in sample["instructions"].items()
        }
    )
    ingest, lengths = CleanParams(seed=0), TokenizeParams(max_length=256)
    _, all_rows = tokenized(domains, raw, out, ingest, lengths)
    adapting = {"strategy": {"name": "proportional"}, "rounds": 2, "resume": "restart"}
    params = TrainParams.model_validate(conf["train"] | adapting)
    trained = train(all_rows, raw, params, folder=out / "adapted")
    base = CheckpointRef.from_manifest(trained.model_ref.path, "adapted")
    return Start(SAMPLE, domains.active, all_rows, base, ingest, lengths, TRAIN, list(range(seeds)))


def _defaults() -> dict[str, Any]:
    """The project's own parameters, seed 0."""
    found: dict[str, Any] = {}
    for file in sorted(Path("conf/base").glob("parameters_*.yml")):
        text = file.read_text(encoding="utf-8").replace("${globals:seed}", "0")
        found |= yaml.safe_load(text) or {}
    return found


def of_setting(name: str, seeds: int) -> Start:
    """A declared setting with its first seeds: its rows, its adapted base, its training."""
    declared = Declared(name)
    if declared.setting.kind != "no_data":
        raise SystemExit(f"{name} is a setting of kind {declared.setting.kind}, not no_data")
    world = make_world(declared)
    run = world.run
    seeds_of_setting = world.setting.seeds.report
    if seeds > len(seeds_of_setting):
        raise SystemExit(f"{name} declares {len(seeds_of_setting)} seeds, {seeds} are asked for")
    return Start(
        name,
        run.domains.active,
        world.store,
        world.base,
        run.ingest,
        run.tokenize,
        run.train.model_dump(),
        seeds_of_setting[:seeds],
        declared.setting.targets[0],
    )
