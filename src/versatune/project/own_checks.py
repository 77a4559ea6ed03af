"""Checks of what domains with the base model's own texts (`self: true`) require of other blocks."""

from collections.abc import Iterator

from versatune.data.config import Domains
from versatune.demo.base_model import BaseModelParams
from versatune.mixing.config import ExpandParams, InStderrs
from versatune.pipelines.mixture.params import MixtureParams
from versatune.probing.config import ProbeParams
from versatune.project.blocks import Key, Problem
from versatune.training.config import TrainParams


def check_base_samples(base_model: BaseModelParams, probe: ProbeParams) -> Iterator[Problem]:
    """A base model pretrained here must have room for the begin token and the sampled tokens."""
    limit, wanted = base_model.pretrain.max_length, probe.sampling.max_new_tokens
    made_here = base_model.kind == "pretrain" and probe.sampling.source == "model"
    if made_here and probe.known_distribution is None and wanted >= limit:
        yield Problem(
            ("probe", "sampling", "max_new_tokens"),
            f"{wanted} tokens behind a begin token are more than the base model takes "
            f"(base_model.pretrain.max_length is {limit}): lower it, or raise that",
        )


def check_own_texts(domains: Domains, probe: ProbeParams) -> Iterator[Problem]:
    """Domains with `self: true` need a judge that can recognise them."""
    own = [name for name, config in domains.active.items() if config.rehearses]
    if own and probe.known_distribution is not None:
        yield Problem(
            ("probe", "known_distribution"),
            f"leaves out the probe, and {', '.join(own)} (`self: true`) train on its samples: set "
            "it to null, or give these domains rows",
        )
    alone = [name for name, config in domains.active.items() if config.only_own]
    judges = {"judge": probe.judge} | ({"audit": probe.audit.judge} if probe.audit.n else {})
    for key, judge in judges.items():
        if len(alone) > 1 and judge.own.needs_rows:
            where: Key = ("probe", "judge") if key == "judge" else ("probe", "audit", "judge")
            yield Problem(
                (*where, "kind"),
                f"a {judge.kind} learns domains from their rows, and {', '.join(alone)} have none: "
                "take likelihood or endpoint, which know them by their description, or make them "
                "one domain",
            )


def check_detected_shares(
    domains: Domains, probe: ProbeParams, mixture: MixtureParams, train: TrainParams
) -> Iterator[Problem]:
    """A classifier that takes samples for a domain's rows assigns nearly every text to it."""
    alone = [name for name, config in domains.active.items() if config.only_own]
    if not alone or not probe.judge.own.needs_rows:
        return
    for key, name in (("mixture", mixture.strategy.name), ("train", train.strategy.name)):
        if name == "inverse" or (key, name) == ("mixture", "constant"):
            yield Problem(
                (key, "strategy", "name"),
                f"{name!r} takes the detected shares, and a {probe.judge.kind} can't measure that "
                f"of {', '.join(alone)}, which has no rows: choose proportional, uniform or custom",
            )


def check_drift_tolerance(domains: Domains, train: TrainParams) -> Iterator[Problem]:
    """No model beats the base model on its own texts, so a tolerance of 0 forbids any training."""
    constrained = isinstance(train.strategy, ExpandParams) and train.strategy.rule == "constrained"
    if not constrained and train.interpolate in (None, "auto"):
        return
    tolerance = train.objective.tolerance
    for name, config in domains.active.items():
        own = tolerance.get(name, 0.0) if isinstance(tolerance, dict) else tolerance
        if config.only_own and own in (0.0, InStderrs(stderrs=0)):
            yield Problem(
                ("train", "objective", "tolerance"),
                f"is 0 for {name}, whose held-out rows the base model wrote itself: their loss can "
                "only rise (that rise is the drift). Allow some, as a part of the base model's "
                f"loss: {{{name}: 0.05}}",
            )


def check_retrained_rows(domains: Domains) -> Iterator[Problem]:
    """Retraining has no probe, and so no texts of the model's own. Checked when it runs."""
    for name, config in domains.active.items():
        if config.rehearses:
            yield Problem(
                ("domains", name, "sources"),
                "retraining draws no texts from the model, so `self: true` has no rows there: give "
                "the domain rows, or take it out",
            )
