"""Checks of parameters of one block against those of another.

Each check is a function whose arguments name the blocks it reads; it runs when all of them exist.
Mistakes are yielded, not raised, so that one run reports all of them.
"""

import inspect
from collections import Counter
from collections.abc import Callable, Iterator

from versatune.comparing.config import CompareParams
from versatune.data.config import Domains, TokenizeParams
from versatune.demo.base_model import BaseModelParams
from versatune.domains import RESERVED, canonical, unknown
from versatune.errors import VersatuneError
from versatune.evaluation.config import EvaluateParams
from versatune.evaluation.results import HELD_OUT
from versatune.mixing.config import CustomParams, Unit
from versatune.pipelines.mixture.params import MixtureParams
from versatune.pipelines.report.params import ReportParams
from versatune.probing.config import ProbeParams
from versatune.probing.known import known_distribution
from versatune.project.blocks import Blocks, Key, Problem
from versatune.project.mix_checks import (
    bounds_problems,
    is_name,
    name_problems,
    objective_problems,
    strategy_problems,
)
from versatune.project.own_checks import (
    check_base_samples,
    check_detected_shares,
    check_drift_tolerance,
    check_own_texts,
    check_retrained_rows,
)
from versatune.project.present_checks import (
    check_bases,
    check_engine,
    check_evaluation_files,
    check_extra_models,
    check_memory,
    check_packages,
    check_reference_files,
    check_training_files,
    check_vllm,
)
from versatune.retraining.config import RetrainParams
from versatune.training.config import TrainParams
from versatune.training.reference_config import ReferenceParams

Check = Callable[..., Iterator[Problem]]

WORST_OF_WHAT = (
    "worst is the largest gap to the references, and there are none: measure them "
    "(references.mode: measure; retraining can't), or choose mean or relative"
)


def problems(blocks: Blocks, checks: tuple[Check, ...]) -> Iterator[Problem]:
    """What those checks find whose blocks all exist."""
    for check in checks:
        names = inspect.signature(check).parameters
        if all(name in blocks for name in names):
            yield from check(**{name: blocks[name] for name in names})


def check_lengths(tokenize: TokenizeParams, train: TrainParams) -> Iterator[Problem]:
    """A packed row must hold the longest example."""
    yield from _too_short(train.max_length, tokenize.max_length, ("train", "max_length"))


def check_reference_lengths(
    tokenize: TokenizeParams, references: ReferenceParams
) -> Iterator[Problem]:
    """The same, where references have a length of their own."""
    if "max_length" in references.train and references.mode != "none":
        key = ("references", "train", "max_length")
        yield from _too_short(references.train["max_length"], tokenize.max_length, key)


def check_base_length(base_model: BaseModelParams, tokenize: TokenizeParams) -> Iterator[Problem]:
    """How many tokens a base model that is made here takes."""
    limit = base_model.pretrain.max_length
    if base_model.kind == "pretrain" and tokenize.max_length > limit:
        yield Problem(
            ("tokenize", "max_length"),
            f"{tokenize.max_length} is more than the base model takes "
            f"(base_model.pretrain.max_length is {limit}): lower it, or raise that",
        )


def check_units(mixture: MixtureParams, train: TrainParams) -> Iterator[Problem]:
    """A share of tokens is not a share of rows."""
    yield from _other_unit(train.unit, mixture.unit, ("train", "unit"))


def check_mixture(domains: Domains, mixture: MixtureParams) -> Iterator[Problem]:
    """The shares training starts with."""
    names = list(domains.active)
    yield from strategy_problems(mixture.strategy, names, ("mixture", "strategy"))
    if not isinstance(mixture.strategy, CustomParams):
        yield from bounds_problems(mixture.floor, 1.0, names, ("mixture", "floor"))


def check_training(domains: Domains, train: TrainParams) -> Iterator[Problem]:
    """The strategy and the caps of training."""
    names = list(domains.active)
    yield from strategy_problems(train.strategy, names, ("train", "strategy"))
    yield from objective_problems(train.objective, names, ("train", "objective"))
    yield from name_problems(train.epoch_cap, names, ("train", "epoch_cap"))


def check_references(train: TrainParams, references: ReferenceParams) -> Iterator[Problem]:
    """Training needs the references it steers by, measured on the rows it measures."""
    yield from _references(train, references, ("train",))


def check_comparison(
    domains: Domains, tokenize: TokenizeParams, mixture: MixtureParams, train: TrainParams,
    compare: CompareParams,
) -> Iterator[Problem]:  # fmt: skip
    """Every strategy of a comparison, and what its runs change about training."""
    names = list(domains.active)
    for label, strategy in compare.strategies.items():
        yield from strategy_problems(strategy, names, ("compare", "strategies", label))
    if compare.target is not None and (problem := unknown(compare.target, names)):
        yield Problem(("compare", "target"), problem)
    try:
        each = train.changed(compare.train)
    except ValueError as error:
        yield Problem(("compare", "train"), f"together with `train`: {error}")
        return
    if compare.bases and each.objective.kind == "worst":
        yield Problem(
            ("compare", "bases"),
            "the objective is worst, which is against references of one base model: choose another "
            "kind (compare.train.objective), or compare without other base models",
        )
    if "objective" in compare.train:
        yield from objective_problems(each.objective, names, ("compare", "train", "objective"))
    if "epoch_cap" in compare.train:
        yield from name_problems(each.epoch_cap, names, ("compare", "train", "epoch_cap"))
    if "max_length" in compare.train:
        key = ("compare", "train", "max_length")
        yield from _too_short(each.max_length, tokenize.max_length, key)
    if "unit" in compare.train:
        yield from _other_unit(each.unit, mixture.unit, ("compare", "train", "unit"))


def check_compared_references(
    train: TrainParams, references: ReferenceParams, compare: CompareParams
) -> Iterator[Problem]:
    """Strategies that need references have them. Checked only when a comparison runs: the
    strategies it compares by default need some, even in a project that never compares."""
    each = train.changed(compare.train)
    for label, strategy in compare.strategies.items():
        run = each.model_copy(update={"strategy": strategy})
        found = list(_references(run, references, ("compare", "strategies", label)))
        yield from found
        if found:
            return


def check_probe(domains: Domains, probe: ProbeParams) -> Iterator[Problem]:
    """Judges and samplers have a name, and known counts are of the project's domains."""
    if probe.known_distribution is not None:
        try:
            known_distribution(probe.known_distribution, list(domains.active))
        except VersatuneError as error:
            message = str(error).removeprefix("probe.known_distribution: ")
            yield Problem(("probe", "known_distribution"), message)
        return
    judge = probe.judge
    if missing := judge.own.missing():
        yield Problem(("probe", "judge", judge.kind, *missing[0]), missing[1])
    server = probe.sampling.server
    if probe.sampling.source == "server" and not server.model:
        key: Key = ("probe", "sampling", "server", "model")
        yield Problem(key, f"is empty: name the model as {server.place} knows it")


def check_tasks(domains: Domains, evaluate: EvaluateParams) -> Iterator[Problem]:
    """Tasks belong to domains, and the tasks of a domain differ by name."""
    tasks = evaluate.harness.tasks
    yield from name_problems(tasks, list(domains.active), ("evaluate", "harness", "tasks"))
    named = {canonical(name): list(found) for name, found in tasks.items() if is_name(name)}
    for domain, config in domains.active.items():
        own = [file.task for file in config.evaluation]
        key = ("domains", domain, "evaluation")
        for name, times in Counter(own + named.get(domain, [])).items():
            if name == HELD_OUT:
                yield Problem(key, f"a task can't be called {name!r}: {RESERVED[name]}")
            elif times > 1:
                yield Problem(
                    key,
                    f"two tasks of {domain} are called {name!r}: give a file another `task`, and "
                    "name each task once in evaluate.harness.tasks",
                )


def check_retraining(domains: Domains, retrain: RetrainParams) -> Iterator[Problem]:
    """The strategy and the tolerances of retraining."""
    names = list(domains.active)
    yield from strategy_problems(retrain.strategy, names, ("retrain", "strategy"))
    if retrain.strategy.needs_reference:
        yield Problem(
            ("retrain", "strategy"),
            f"{retrain.strategy.name} needs reference losses, and retraining measures none: choose "
            "`potential_source: progress` where the strategy has it, or another strategy",
        )
    for metric, limit in retrain.promotion.limits.items():
        key = ("retrain", "promotion", "limits", metric, "domains")
        yield from name_problems(limit.domains, names, key)


def check_required(domains: Domains, report: ReportParams) -> Iterator[Problem]:
    """Bounds of `report.require` name existing domains."""
    for name in ("max_loss", "min_accuracy"):
        bounds = getattr(report.require, name)
        yield from name_problems(bounds, list(domains.active), ("report", "require", name))


def check_retrained(train: TrainParams) -> Iterator[Problem]:
    """Retraining continues from whole models and measures no references. Checked when it runs."""
    if train.lora is not None and not train.lora.merge:
        yield Problem(
            ("train", "lora", "merge"),
            "retraining needs whole models, since a champion is what the next one is trained "
            "from: set it to true",
        )
    if train.objective.kind == "worst":
        yield Problem(("train", "objective", "kind"), WORST_OF_WHAT)


ALWAYS: tuple[Check, ...] = (
    *(check_lengths, check_reference_lengths, check_base_length, check_units),
    *(check_mixture, check_training, check_references, check_comparison),
    *(check_probe, check_base_samples, check_own_texts, check_detected_shares),
    *(check_drift_tolerance, check_tasks, check_retraining, check_required),
    *(check_training_files, check_reference_files, check_evaluation_files),
    *(check_packages, check_engine, check_vllm),
)
"""Checked before every run of any pipeline."""

WHEN_RUN: dict[str, tuple[Check, ...]] = {
    "evaluate": (check_extra_models,),
    "compare": (check_compared_references, check_bases),
    "retrain": (check_retrained, check_retrained_rows),
}
"""Checked before runs that use a block."""

WHEN_MADE: dict[str, tuple[Check, ...]] = {"trained_model": (check_memory,)}
"""Checked before runs that make a catalog entry."""


def _too_short(length: int, longest: int, key: Key) -> Iterator[Problem]:
    if length < longest:
        yield Problem(
            key,
            f"{length} is less than tokenize.max_length ({longest}), so the longest rows would not "
            "fit: raise it, or lower tokenize.max_length",
        )


def _other_unit(unit: Unit, initial: Unit, key: Key) -> Iterator[Problem]:
    if unit != initial:
        yield Problem(
            key,
            f"{unit!r}, but mixture.unit is {initial!r}. The two units must match: give both the "
            "same value",
        )


def _references(train: TrainParams, references: ReferenceParams, key: Key) -> Iterator[Problem]:
    worst = train.objective.kind == "worst"
    if not (train.strategy.needs_reference or worst):
        return
    if references.mode != "measure":
        where = (*key, "strategy") if key == ("train",) else key
        if worst:
            yield Problem(("train", "objective", "kind"), WORST_OF_WHAT)
            return
        yield Problem(
            where,
            f"{train.strategy.name} needs reference losses, and references.mode is "
            f"{references.mode}: set that to measure, choose `potential_source: progress` where "
            "the strategy has it, or another strategy",
        )
        return
    rows = "heldout_rows_per_domain"
    own = references.train.get(rows, train.heldout_rows_per_domain)
    if own != train.heldout_rows_per_domain:
        yield Problem(
            ("references", "train", rows),
            f"{_all(own)}, but the losses of training are of "
            f"{_all(train.heldout_rows_per_domain)} rows (train.heldout_rows_per_domain), and how "
            "the rows differ would count as learnable potential: give both one value",
        )
    tokens = "heldout_tokens_per_domain"
    if references.train.get(tokens, train.heldout_tokens_per_domain) != (
        train.heldout_tokens_per_domain
    ):
        yield Problem(
            ("references", "train", tokens),
            f"{references.train[tokens]}, but train.{tokens} is {train.heldout_tokens_per_domain}, "
            "and how the rows differ would count as learnable potential: give both one value",
        )


def _all(rows: int | None) -> str:
    return "all" if rows is None else str(rows)
