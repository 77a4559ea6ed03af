"""What parameters of strategies have in common, by what kind of strategy they are of."""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from versatune.params import Params, renamed


class StrategyBase(Params):
    """Common to the parameters of all strategies."""

    made_by: ClassVar[str] = "interface:Static"
    """The strategy's class: its module in this package, and its name."""
    first_shares: ClassVar[str] = "initial"
    """Where they come from: ``uniform``, ``proportional``, ``inverse``, ``custom``, or the
    ``initial`` mixture."""

    @property
    def starts_from(self) -> str:
        """:attr:`first_shares`, or what a parameter says."""
        return self.first_shares

    def told(self) -> dict[str, Any]:
        """The parameters, and where the first shares come from, for words about them."""
        return {**self.model_dump(), "starts_from": self.starts_from}

    @property
    def needs_reference(self) -> bool:
        """Whether reference losses must be measured for this strategy."""
        return False

    @property
    def uses_law(self) -> bool:
        """Whether this strategy learns from runs made before the training, if there are."""
        return False


class AdaptiveParams(StrategyBase):
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


class SignalParams(AdaptiveParams):
    """Strategies that can follow the losses of training itself."""

    signal: Literal["train", "validation"] = "train"
    """Which loss the shares follow; the papers take the training batches'. ``smoothing`` needs
    ``validation``."""

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


class PotentialParams(AdaptiveParams):
    """Strategies that need the learnable potential."""

    start: Start = "initial"
    """Shares of the first round: the ``initial`` mixture (the paper's: detected), ``uniform``, or
    ``proportional`` to the data. The last two show what adapting does without detection."""
    potential_source: PotentialSource = "reference"
    """Where gamma comes from: ``reference`` losses (the paper's), or the ``progress`` of the
    held-out loss since the last round, which needs no extra runs: what still falls fast is
    still being learnt. Progress is several times smaller than the paper's gamma, so use a larger
    sigma."""

    @property
    def starts_from(self) -> str:
        return self.start

    @property
    def needs_reference(self) -> bool:
        """Whether reference losses must be measured for this strategy."""
        return self.potential_source == "reference"
