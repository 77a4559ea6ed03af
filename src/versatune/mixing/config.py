"""Parameters of the strategies."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from versatune.domains import by_domain
from versatune.mixing.guard_config import GuardParams
from versatune.mixing.objective_config import (
    InStderrs,
    Kind,
    LawParams,
    ObjectiveParams,
    TargetShareParams,
)
from versatune.params import Params, renamed

__all__ = ["InStderrs", "Kind", "LawParams", "ObjectiveParams", "TargetShareParams"]

Unit = Literal["rows", "tokens", "supervised_tokens"]
"""The unit of shares: examples, tokens, or tokens that have a label."""


class _Named(Params):
    """Common to the parameters of all strategies."""

    @property
    def adaptive(self) -> bool:
        """Whether the shares change while training."""
        return False

    @property
    def needs_reference(self) -> bool:
        """Whether reference losses must be measured for this strategy."""
        return False

    @property
    def uses_law(self) -> bool:
        """Whether this strategy learns from runs made before the training, if there are."""
        return False


class UniformParams(_Named):
    """The same share for every domain."""

    name: Literal["uniform"] = "uniform"
    """Which strategy this is."""


class ProportionalParams(_Named):
    """Shares by the amount of data, n_j^(1/T): the stratified mix for T = 1."""

    name: Literal["proportional"] = "proportional"
    """Which strategy this is."""
    temperature: float = Field(1.0, gt=0)
    """T; 1 follows the data, larger values go towards uniform."""


class InverseParams(_Named):
    """The paper's baseline against the detected shares: w_j = (1 - P_j) / sum_i (1 - P_i)."""

    name: Literal["inverse"] = "inverse"
    """Which strategy this is."""


class ConstantParams(_Named):
    """The shares training starts with (for the initial mixture: the detected ones), unchanged."""

    name: Literal["constant"] = "constant"
    """Which strategy this is."""


class CustomParams(_Named):
    """Shares written down by the user."""

    name: Literal["custom"] = "custom"
    """Which strategy this is."""
    weights: dict[str, float] = Field(min_length=1)
    """The share of every domain; not negative, sum 1."""

    _names = field_validator("weights")(by_domain)

    @model_validator(mode="after")
    def _are_shares(self) -> Self:
        total = math.fsum(self.weights.values())
        if min(self.weights.values()) < 0 or abs(total - 1) > 1e-6:
            raise ValueError(f"weights must be >= 0 and sum to 1, their sum is {total:.8g}")
        return self


class AdaptiveParams(_Named):
    """Parameters of all strategies that change shares."""

    smoothing: float = Field(0.0, ge=0, lt=1)
    """Weight of the past in the running mean of held-out losses; 0 takes each as measured."""
    forgetting_baseline: Literal["previous", "best"] = "best"
    """What forgetting is measured against: the previous measurement (the paper's) or the lowest
    so far. The first rounds lower every domain's loss because the format is learnt; a slow rise
    after that shows only against the lowest."""
    floor: float = Field(0.0, ge=0, lt=1)
    """No domain's share falls below this (an open point of the paper)."""
    cap: float = Field(1.0, gt=0, le=1)
    """No domain's share rises above this."""

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, given: Any) -> Any:
        names = {"against": "forgetting_baseline"}
        if "potential_source" in cls.model_fields:
            names["potential"] = "potential_source"
        return renamed(given, names, "strategy")

    @property
    def adaptive(self) -> bool:
        """Whether the shares change while training."""
        return True


class _SignalParams(AdaptiveParams):
    """Strategies that can follow the losses of training itself."""

    signal: Literal["train", "validation"] = "train"
    """Which loss the shares follow; the papers take the training batches'. ``smoothing`` goes with
    ``validation`` alone."""

    @model_validator(mode="after")
    def _smooths_what_it_follows(self) -> Self:
        if self.smoothing and self.signal == "train":
            raise ValueError(
                f"smoothing {self.smoothing:g} averages held-out losses, and with signal 'train' "
                "the shares follow training losses: give signal: validation, or smoothing: 0"
            )
        return self


PotentialSource = Literal["reference", "progress"]
Start = Literal["initial", "uniform", "proportional"]


class _PotentialParams(AdaptiveParams):
    """Strategies that need the learnable potential."""

    start: Start = "initial"
    """Shares of the first round: the ``initial`` mixture (the paper's: detected), ``uniform``, or
    ``proportional`` to the data. The last two tell what adapting does without detection."""
    potential_source: PotentialSource = "reference"
    """Where gamma comes from: ``reference`` losses (the paper's), or the ``progress`` of the
    held-out loss since the last round, which needs no extra runs: what still falls fast is
    still being learnt. Progress is several times smaller than the paper's gamma, so use a larger
    sigma."""

    @property
    def needs_reference(self) -> bool:
        """Whether reference losses must be measured for this strategy."""
        return self.potential_source == "reference"


class FosterParams(_PotentialParams):
    """Algorithm 2: raise all abilities together."""

    name: Literal["foster"] = "foster"
    """Which strategy this is."""
    sigma: float = Field(2.0, ge=0)
    """How far one update moves the shares. Open in the paper; chosen on validation data
    (docs/results.md), where 0.25 to 4 differ little when shares start as detected."""


class ExpandParams(_PotentialParams):
    """Raise one domain, or several, and keep the others."""

    name: Literal["expand"] = "expand"
    """Which strategy this is."""
    target: str | list[str]
    """The domain to raise; ``rule: constrained`` takes a list too."""
    rule: Literal["paper", "constrained"] = "paper"
    """``paper``: Algorithm 3, a gate on what is being forgotten. ``constrained``: the targets'
    lowest loss subject to ``objective.tolerance`` for each other domain, by its forecast at the
    end of training."""
    target_share: TargetShareParams = TargetShareParams()
    """Bounds of the targets' share (``rule: constrained``)."""
    margin: float = Field(0.25, ge=0)
    """Standard errors by which forecasts stay within the tolerance (``rule: constrained``). With 2
    the others gained, and the target got half of its possible gain (docs/settings.md)."""
    law: LawParams = LawParams()
    """How the effect of shares is learnt (``rule: constrained``)."""
    sigma: float = Field(4.0, ge=0)
    """How far a closed gate moves the shares towards what is being forgotten (open in the
    paper; chosen on validation data, docs/results.md)."""
    epsilon: float = Field(0.05, ge=0)
    """The gate is open while the others' mean forgetting is below epsilon times the target's
    potential (open in the paper; chosen on validation data, docs/results.md). 0 never opens it;
    with few held-out rows or little potential a small one seldom does."""
    delta: float = Field(0.05, ge=0, le=1)
    """What an open gate adds to the target's share (open in the paper; kept against 0.1 on
    validation data, docs/results.md)."""
    target_cap: float = Field(0.7, gt=0, le=1)
    """The target's share is raised no further than this: some of every other domain must be
    seen to be kept (the paper has no cap; 0.9 changed little on validation data)."""
    when_closed: Literal["yield", "hold"] = "yield"
    """A closed gate: the target's share ``yield``s to what is being forgotten, or is ``hold``
    and the others share the rest anew (the paper can be read both ways)."""
    guard: GuardParams = GuardParams()
    """When training ends because the others keep forgetting."""

    @model_validator(mode="after")
    def _rules_keep_to_their_own(self) -> Self:
        if strange := sorted(_OF_OTHER_RULE[self.rule] & self.model_fields_set):
            raise ValueError(f"rule {self.rule!r} has no use for {', '.join(strange)}")
        if not self.targets or len(set(self.targets)) < len(self.targets):
            raise ValueError(f"target must name domains, each once, got {self.target!r}")
        by_domain(dict.fromkeys(self.targets))
        if self.rule == "paper" and len(self.targets) > 1:
            raise ValueError("several targets need rule: constrained")
        return self

    @model_serializer(mode="wrap")
    def _own_alone(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what the other rule uses, so that what is written out can be read again."""
        return {k: v for k, v in handler(self).items() if k not in _OF_OTHER_RULE[self.rule]}

    @property
    def targets(self) -> tuple[str, ...]:
        """The domains to raise."""
        return (self.target,) if isinstance(self.target, str) else tuple(self.target)

    @property
    def needs_reference(self) -> bool:
        """Whether reference losses must be measured for this strategy."""
        return self.rule == "paper" and self.potential_source == "reference"

    @property
    def uses_law(self) -> bool:
        """Whether this strategy learns from runs made before the training, if there are."""
        return self.rule == "constrained"


_OF_OTHER_RULE = {
    "paper": frozenset({"target_share", "margin", "law"}),
    "constrained": frozenset(
        {"sigma", "epsilon", "delta", "target_cap", "when_closed", "guard", "start"}
    ),
}
"""Parameters of ``expand`` by the rule that has no use for them."""


class MixingLawParams(AdaptiveParams):
    """Learns how shares move losses, and takes the shares that are forecast to end best."""

    name: Literal["mixing_law"] = "mixing_law"
    """Which strategy this is."""
    stay: Literal["proportional", "uniform", "initial"] = "uniform"
    """The shares to stay at while nothing is known to be better: 1/k each, the stratified mix, or
    the initial mixture. For the mean over domains equal shares were never worse than stratified
    ones (docs/settings.md)."""
    law: LawParams = LawParams()
    """How the effect of shares is learnt and followed."""
    floor: float = Field(0.01, ge=0, lt=1)
    """No domain's share falls below this."""

    @property
    def uses_law(self) -> bool:
        """Whether this strategy learns from runs made before the training, if there are."""
        return True


class DoremiParams(_SignalParams):
    """DoReMi's update (arXiv 2305.10429) on the model itself, from uniform shares."""

    name: Literal["doremi"] = "doremi"
    """Which strategy this is."""
    eta: float = Field(1.0, ge=0)
    """Step size; the paper's is 1."""
    share_smoothing: float = Field(1e-3, ge=0, le=1)
    """c: this part of all shares is spread evenly; the paper's is 0.001."""

    @property
    def needs_reference(self) -> bool:
        """Whether reference losses must be measured for this strategy."""
        return True


class OdmParams(_SignalParams):
    """Online Data Mixing (arXiv 2312.02406), an EXP3 bandit, from uniform shares."""

    name: Literal["odm"] = "odm"
    """Which strategy this is."""
    decay: float = Field(0.9, ge=0, le=1)
    """a, weight of the past in the running mean of rewards; the paper's is 0.9."""
    scale: float = Field(1.0, gt=0)
    """Factor of the rewards. The paper's is 1, for an update at each step; in the few updates of
    rounds it hardly moves shares, 5 does."""


StaticParams = Annotated[
    UniformParams | ProportionalParams | InverseParams | ConstantParams | CustomParams,
    Field(discriminator="name"),
]
"""Strategies whose shares never change: what a mixture can start with."""

StrategyParams = Annotated[
    UniformParams
    | ProportionalParams
    | InverseParams
    | ConstantParams
    | CustomParams
    | FosterParams
    | ExpandParams
    | MixingLawParams
    | DoremiParams
    | OdmParams,
    Field(discriminator="name"),
]
"""All strategies, told apart by ``name``."""
