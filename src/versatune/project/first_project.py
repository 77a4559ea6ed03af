"""What `versatune init` writes for your model and data, and what it reports about them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from kedro.config import OmegaConfigLoader
from kedro.framework.project import configure_project
from kedro.framework.project import settings as kedro_settings

from versatune.data.config import CleanParams, Domains, TokenizeParams
from versatune.data.documents import DocumentSpec
from versatune.data.encode import EncoderSpec
from versatune.data.found import FoundDomains
from versatune.data.lengths import saved_token_limit
from versatune.data.row_check import ROWS, RowCheck, check_rows
from versatune.data.shards import Encoders
from versatune.demo.pretrain_config import PretrainParams
from versatune.errors import VersatuneError
from versatune.evaluation.tasks import read_task
from versatune.modeling.checkpoints import CheckpointRef, load_tokenizer
from versatune.modeling.locate import find_here
from versatune.probing.config import ProbeParams
from versatune.project.blocks import Blocks
from versatune.project.hook import check
from versatune.project.places import Places
from versatune.project.starter import HERE
from versatune.reporting import formats
from versatune.training.config import TrainParams
from versatune.training.reference_config import ReferenceParams

SAMPLE = "sample"
"""The embedded sample, as model and as data."""

LENGTHS = (1024, 2048, 4096, 8192)
"""Tokens of the longest row to train on: the first of these with which no domain loses too many
rows, where the model takes as many."""

LEAVE_OUT = 0.5
"""Longer rows are left out where even the last length loses too many, up to this share."""

REST = "everything else"

HEADER = """\
# Written by `versatune init`. These values replace those of conf/base.
# `versatune parameters` prints every key and what it does.
"""


@dataclass(frozen=True)
class Choice:
    """Model and data of the project; None stands for the embedded sample."""

    model: str | None
    """A model folder, or the id of a hub model."""
    found: FoundDomains | None
    """The domains of the user's data."""
    length: int = LENGTHS[0]
    """Tokens of the longest row."""
    max_reject_rate: float | None = None
    """Share of its rows that a domain may lose; None for the value of ``conf/base``."""


def model_of(name: str) -> str | None:
    """The model as the configuration names it, a folder by its absolute path; None for the
    sample's.

    Raises VersatuneError on a model that can't be loaded, and on a name that can't be one.
    """
    if name in ("", SAMPLE):
        return None
    here = find_here(name)
    folder = Path(name).expanduser()
    return str(folder.absolute()) if here and folder.is_dir() else name


def settings(choice: Choice) -> dict[str, Any]:
    """The content of ``conf/local/parameters.yml``: only what differs from ``conf/base``."""
    made: dict[str, Any] = {}
    if choice.model is not None:
        made["base_model"] = {"kind": "pretrained", "name_or_path": choice.model}
    if choice.found is not None:
        made |= _of_data(choice.found)
    if choice.model is not None:
        made["tokenize"] = {"max_length": choice.length}
        own = {"learning_rate": 2.0e-5, "max_length": choice.length, "bf16": "auto"}
        made["train"] = own | made.get("train", {})
    elif choice.found is not None:
        made["tokenize"] = {"max_length": PretrainParams().max_length}
    if choice.max_reject_rate is not None:
        made["ingest"] = {"max_reject_rate": choice.max_reject_rate}
    return made


def _of_data(found: FoundDomains) -> dict[str, Any]:
    sample = yaml.safe_load((HERE / "conf/base/parameters_domains.yml").read_text("utf-8"))
    described = {name: entry["description"] for name, entry in sample["domains"].items()}
    blocks = found.blocks()
    domains: dict[str, Any] = {
        name: {"description": described.get(name, name.replace("_", " ")), **block}
        for name, block in blocks.items()
    }
    made: dict[str, Any] = {"domains": domains}
    if len(blocks) == 1:
        (only,) = blocks
        rest = "other" if only != "other" else "rest"
        domains[rest] = {"description": REST, "sources": [{"self": True}], "evaluation": []}
        made["mixture"] = {"strategy": {"name": "proportional"}}
        made["references"] = {"mode": "none"}
        made["train"] = {"strategy": {"name": "custom", "weights": {only: 0.7, rest: 0.3}}}
    domains |= {name: None for name in described if name not in domains}
    return made


def as_yaml(made: Mapping[str, Any]) -> str:
    """The file that holds ``made``."""
    body = yaml.safe_dump(dict(made), sort_keys=False, allow_unicode=True, width=100)
    return HEADER + (body if made else "{}\n")


def read_blocks(project: Path) -> Blocks:
    """The parameters of a project, as each run of it reads and checks them.

    Raises VersatuneError that names all mistakes.
    """
    configure_project("versatune")
    arguments = kedro_settings.CONFIG_LOADER_ARGS
    loader = OmegaConfigLoader(str(project / "conf"), env="local", **arguments)
    return check(loader, Places(loader))


def with_rows_checked(choice: Choice) -> tuple[Choice, dict[str, RowCheck]]:
    """The choice with a length that suits model and rows, and what the first rows are like.

    Where no length suits, the longer rows are left out.
    """
    rows: dict[str, RowCheck] = {}
    for length in _lengths(choice.model):
        choice = replace(choice, length=length)
        if choice.found is None:
            return choice, rows
        rows = checked_rows(choice)
        if not any(seen.too_long for seen in rows.values()):
            return choice, rows
    shorter = replace(choice, max_reject_rate=LEAVE_OUT)
    kept = checked_rows(shorter)
    return (choice, rows) if any(seen.too_long for seen in kept.values()) else (shorter, kept)


def _lengths(model: str | None) -> list[int]:
    folder = None if model is None else find_here(model)
    if folder is None:
        return [LENGTHS[0]]
    limit = saved_token_limit(folder)
    return sorted({length if limit is None else min(length, limit) for length in LENGTHS})


def checked_rows(choice: Choice) -> dict[str, RowCheck]:
    """What the first rows of each domain are like, by the rules of ``conf/base``.

    They are tokenised, too, where the model is on this disk.
    """
    found = choice.found
    assert found is not None
    base = yaml.safe_load((HERE / "conf/base/parameters_ingest.yml").read_text("utf-8"))
    ingest = {**base["ingest"], "seed": 0}
    if choice.max_reject_rate is not None:
        ingest["max_reject_rate"] = choice.max_reject_rate
    params = CleanParams.model_validate(ingest)
    pairs = {name: {"description": name, **block} for name, block in found.blocks().items()}
    if len(pairs) == 1:  # a block of one domain is refused
        pairs["rest_of_all"] = {"description": REST, "sources": [{"self": True}]}
    domains = Domains.model_validate(pairs).active
    active = {name: domains[name] for name in found.sources}
    rows = check_rows(active, params, encoders=_encoders(choice))
    for name, paths in found.evaluation.items():
        try:
            for path in paths:
                read_task(name, path.stem, path)
        except VersatuneError as error:
            rows[name] = replace(rows[name], problem=str(error))
    return rows


def _encoders(choice: Choice) -> Encoders | None:
    folder = None if choice.model is None else find_here(choice.model)
    if folder is None:
        return None
    tokenizer = load_tokenizer(folder)
    spec = EncoderSpec.of(tokenizer), DocumentSpec.of(tokenizer)
    return Encoders.of(*spec, TokenizeParams(max_length=choice.length))


def domain_lines(found: FoundDomains, rows: Mapping[str, RowCheck]) -> Iterator[str]:
    """Each domain and what happened to its first rows, and what is no domain."""
    width = max(map(len, found.sources))
    for name, paths in found.sources.items():
        files = ", ".join(path.name + "/" * path.is_dir() for path in paths)
        yield f"  {name:{width}}  {files}: {_of_rows(rows[name])}"
        rejects = rows[name].rejects
        if rejects is not None:
            for reason, entry in rejects.as_dict().items():
                first = entry["examples"][0]
                yield f"  {'':{width}}  {reason}, first {first['where']}: {first['detail']}"
    for why in found.left_out.values():
        yield f"  left out: {why}"


def _of_rows(seen: RowCheck) -> str:
    if seen.problem is not None:
        return f"can't be used. {seen.problem}"
    many = formats.thousands(seen.read)
    parts = [f"{many} rows" if seen.whole else f"the first {many} rows read (up to {ROWS} a file)"]
    if seen.rejects is not None and seen.rejects.total:
        parts.append(f"{seen.rejects.summary()} rejected")
    if seen.dropped is not None and seen.dropped.total:
        parts.append(f"{seen.dropped.summary()} dropped in tokenising")
    for count, what in ((seen.duplicates, "repeated"), (seen.leaked, "leaked from questions")):
        if count:
            parts.append(f"{count} {what}")
    said = f"{', '.join(parts)}; {seen.to_train} to train, {seen.held_out} held out"
    return said + (f"; {formats.thousands(seen.questions)} questions" if seen.questions else "")


def cost_lines(blocks: Blocks, model: str | None) -> Iterator[str]:
    """What the forecast and the training take at most, and the least time they take here."""
    from versatune.training.costs import needs, upper_bound

    train, references, domains = (blocks[name] for name in ("train", "references", "domains"))
    assert isinstance(train, TrainParams)
    assert isinstance(references, ReferenceParams)
    assert isinstance(domains, Domains)
    spent = upper_bound(train)
    folder = None if model is None else find_here(model)
    estimate = None
    if folder is not None:
        estimate = needs(CheckpointRef(name=str(model), path=folder, fingerprint=""), train, spent)
    flops = None if estimate is None else estimate["flops"]
    least = _least_times(blocks, flops, spent.tokens)
    if forecasts(blocks):
        probe = blocks["probe"]
        assert isinstance(probe, ProbeParams)
        sampled = "" if probe.known_distribution else f"{_sampled(probe)}, then "
        yield (
            f"Forecast: {sampled}{references.mixes} short runs of "
            f"{references.mix_steps(train)} steps{least.get('forecast', '')}."
        )
    if references.mode == "measure" and train.strategy.needs_reference:
        yield (
            f"References: {len(domains.active)} runs, one a domain, of at most "
            f"{references.max_steps} steps ({train.strategy.name} steers by them)."
        )
    tokens = formats.thousands(spent.tokens)
    yield f"Training: {train.steps.words}, at most {tokens} tokens{least.get('training', '')}."
    if estimate is None:
        if model is not None:
            yield f"{model} is not on this disk: the first run downloads it."
        yield "Memory and time: the forecast shows them once the model is on this disk."
        return
    if least:
        yield "These times count matrix products only; a small model takes several times as long."
    if estimate["memory"] is None:
        yield "Memory: can't be counted for this architecture."
        return
    needed, there = sum(estimate["memory"].values()), estimate["device_bytes"]
    yield (
        f"Memory: {formats.memory(needed)} of {formats.memory(there)}; "
        f"disk: {formats.memory(estimate['disk'])}."
    )
    if needed > there:
        yield (
            "That does not fit: add `lora: {}`, `gradient_checkpointing: true` or a smaller "
            "`per_device_train_batch_size` to `train`."
        )


def forecasts(blocks: Blocks) -> bool:
    """Whether short runs on mixes are made, from which a forecast comes."""
    references = blocks["references"]
    assert isinstance(references, ReferenceParams)
    return references.mode != "none" and references.mixes > 0


def _sampled(probe: ProbeParams) -> str:
    rounds = probe.rounds
    fewest, most = (
        formats.thousands(n * rounds.samples_per_round)
        for n in (rounds.min_rounds, rounds.max_rounds)
    )
    return (
        f"{fewest} to {most} texts of up to {probe.sampling.max_new_tokens} tokens from the model"
    )


def _least_times(blocks: Blocks, flops: float | None, tokens: float) -> dict[str, str]:
    """How long ``forecast`` and ``training`` take at least, in words; empty where not known.

    ``flops``: of the training, on ``tokens`` tokens.
    """
    from versatune.training.costs import FORWARD, rows_per_step
    from versatune.training.throughput import measured_flops

    if flops is None:
        return {}
    train, references, probe = (blocks[name] for name in ("train", "references", "probe"))
    assert isinstance(train, TrainParams)
    assert isinstance(references, ReferenceParams)
    assert isinstance(probe, ProbeParams)
    run = references.of_mix(train)
    trained = references.mixes * references.mix_steps(train) * rows_per_step(run) * run.max_length
    texts = 0 if probe.known_distribution else probe.rounds.min_rounds
    sampled = texts * probe.rounds.samples_per_round * probe.sampling.max_new_tokens / FORWARD
    seconds = flops / measured_flops()
    times = {"forecast": seconds * (trained + sampled) / tokens, "training": seconds}
    return {name: f"; at least {formats.duration(time)} here" for name, time in times.items()}
