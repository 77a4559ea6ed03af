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
from versatune.mixing.strategy_params import (
    AdaptiveParams,
    PotentialParams,
    SignalParams,
    StrategyBase,
)

__all__ = [
    "AdaptiveParams",
    "InStderrs",
    "Kind",
    "LawParams",
    "ObjectiveParams",
    "TargetShareParams",
]

Unit = Literal["rows", "tokens", "supervised_tokens"]
"""The unit of shares: examples, tokens, or tokens that have a label."""


class UniformParams(StrategyBase):
    """The same share for every domain."""

    first_shares = "uniform"

    name: Literal["uniform"] = "uniform"
    """Which strategy this is."""


class ProportionalParams(StrategyBase):
    """Shares by the amount of data, n_j^(1/T): the stratified mix for T = 1."""

    first_shares = "proportional"

    name: Literal["proportional"] = "proportional"
    """Which strategy this is."""
    temperature: float = Field(1.0, gt=0)
    """T; 1 follows the data, larger values go towards uniform."""


class InverseParams(StrategyBase):
    """The paper's baseline against the detected shares: w_j = (1 - P_j) / sum_i (1 - P_i)."""

    first_shares = "inverse"

    name: Literal["inverse"] = "inverse"
    """Which strategy this is."""


class ConstantParams(StrategyBase):
    """The shares training starts with (for the initial mixture: the detected ones), unchanged."""

    name: Literal["constant"] = "constant"
    """Which strategy this is."""


class CustomParams(StrategyBase):
    """Shares given by the user."""

    first_shares = "custom"

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


class FosterParams(PotentialParams):
    """Algorithm 2: raise all abilities together."""

    made_by = "adaptive:Foster"

    name: Literal["foster"] = "foster"
    """Which strategy this is."""
    sigma: float = Field(2.0, ge=0)
    """The step size of an update. The paper leaves it open; chosen on validation data
    (docs/results.md), where 0.25 to 4 differ little when shares start as detected."""


class ExpandParams(PotentialParams):
    """Raise one domain, or several, and keep the others."""

    made_by = "strategies:expand"

    name: Literal["expand"] = "expand"
    """Which strategy this is."""
    target: str | list[str]
    """The domain to raise; ``rule: constrained`` takes a list too."""
    rule: Literal["constrained", "paper"] = "constrained"
    """``constrained``: the targets' lowest loss subject to ``objective.tolerance`` for each other
    domain, by its forecast at the end of training. ``paper``: Algorithm 3, a gate on what is being
    forgotten."""
    target_share: TargetShareParams = TargetShareParams()
    """Bounds of the targets' share (``rule: constrained``)."""
    margin: float = Field(1.25, ge=0)
    """Standard errors by which forecasts are within the tolerance when training ends; before, as
    large a part of them as is trained (``rule: constrained``). A larger margin protects the others
    more and raises the target less (docs/settings.md)."""
    law: LawParams = LawParams()
    """How the effect of shares is learnt (``rule: constrained``)."""
    explore: float = Field(0.3, ge=0, le=1)
    """Where no run before the training measured what shares do: by how much the logarithms of
    shares change, up or down, in the first two rounds, but not in the last (``rule:
    constrained``)."""
    sigma: float = Field(4.0, ge=0)
    """The step size of a closed gate towards what is being forgotten (not given in the paper;
    chosen on validation data, docs/results.md)."""
    epsilon: float = Field(0.05, ge=0)
    """The gate is open while the others' mean forgetting is below epsilon times the target's
    potential (not given in the paper; chosen on validation data, docs/results.md). With 0 it never
    opens; with few held-out rows or little potential a small value seldom opens it."""
    delta: float = Field(0.05, ge=0, le=1)
    """What an open gate adds to the target's share (not given in the paper; kept against 0.1 on
    validation data, docs/results.md)."""
    target_cap: float = Field(0.7, gt=0, le=1)
    """Upper bound of the target's share, since the other domains must be trained on to be kept (the
    paper has no cap; 0.9 changed little on validation data)."""
    when_closed: Literal["yield", "hold"] = "yield"
    """A closed gate: the target's share ``yield``s to what is being forgotten, or stays (``hold``),
    and only the others' shares change (the paper allows both readings)."""
    guard: GuardParams = GuardParams()
    """When training ends because the others keep forgetting."""

    @model_validator(mode="after")
    def _rules_keep_to_their_own(self) -> Self:
        if strange := sorted(_OF_OTHER_RULE[self.rule] & self.model_fields_set):
            other = "paper" if self.rule == "constrained" else "constrained"
            raise ValueError(
                f"rule {self.rule!r} has no use for {', '.join(strange)}: that is of rule {other!r}"
            )
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
    def starts_from(self) -> str:
        return "proportional" if self.rule == "constrained" else self.start

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
    "paper": frozenset({"target_share", "margin", "law", "explore"}),
    "constrained": frozenset(
        {"sigma", "epsilon", "delta", "target_cap", "when_closed", "guard", "start"}
    ),
}
"""Parameters of ``expand`` by the rule that does not use them."""


class MixingLawParams(AdaptiveParams):
    """Learns the effect of shares on losses, and uses the shares with the best forecast."""

    made_by = "steering:MixingLaw"

    name: Literal["mixing_law"] = "mixing_law"
    """Which strategy this is."""
    stay: Literal["proportional", "uniform", "initial"] = "uniform"
    """The shares to keep while no others are known to be better: 1/k each, the stratified mix, or
    the initial mixture. For the mean over domains equal shares were measurably worse than
    stratified ones in one declared setting only (docs/settings.md)."""
    law: LawParams = LawParams()
    """How the effect of shares is learnt and followed."""
    explore: float = Field(0.2, ge=0, le=1)
    """Where no run before the training measured what shares do: by how much the logarithms of
    shares change, up or down, in the first two rounds, but not in the last. Without it nothing
    tells what shares do."""
    reach: float = Field(1.5, ge=1)
    """Where no run before the training measured what shares do: the shares that an update goes
    towards are within this factor of those it stays at. What it explores comes on top
    (docs/settings.md)."""
    floor: float = Field(0.01, ge=0, lt=1)
    """No domain's share falls below this."""

    @property
    def starts_from(self) -> str:
        return self.stay

    @property
    def uses_law(self) -> bool:
        """Whether this strategy learns from runs made before the training, if there are."""
        return True


class DoremiParams(SignalParams):
    """DoReMi's update (arXiv 2305.10429) on the model itself, from uniform shares."""

    made_by = "adaptive:Doremi"
    first_shares = "uniform"

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


class OdmParams(SignalParams):
    """Online Data Mixing (arXiv 2312.02406), an EXP3 bandit, from uniform shares."""

    made_by = "adaptive:Odm"
    first_shares = "uniform"

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
"""Strategies whose shares never change; an initial mixture can use these."""

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
"""All strategies; ``name`` says which one."""
