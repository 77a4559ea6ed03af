"""Parameters of the embedded sample."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from versatune.domains import canonical
from versatune.params import Params


class SampleParams(Params):
    """What is generated from the embedded facts."""

    source: Path = Path("data/01_raw/samples")
    """Folder of `facts/<domain>.csv` and `templates.yml`."""
    seed: int = Field(default=0, ge=0)
    """The seed of all random choices."""
    shares: dict[str, float] = Field(
        default={
            "law": 0.08,
            "medicine": 0.14,
            "finance": 0.10,
            "science": 0.20,
            "code": 0.18,
            "other": 0.30,
        }
    )
    """Share of each domain in the documents of the pretraining corpus; they sum to 1."""
    documents: int = Field(default=8000, ge=1)
    """Number of documents in the pretraining corpus."""
    seen_fraction: float = Field(default=2 / 3, gt=0, lt=1)
    """Part of each domain's facts that the corpus contains; only fine-tuning teaches the rest."""
    phrasings: int = Field(default=4, ge=1)
    """Instruction rows made of each fact, each phrased in another way (at most those there are)."""
    choices: int = Field(default=4, ge=2)
    """Answers to choose from in a multiple-choice item."""

    @model_validator(mode="after")
    def _shares_sum_to_one(self) -> Self:
        if any(share <= 0 for share in self.shares.values()):
            raise ValueError(f"every share must be above 0: {self.shares}")
        if len({canonical(name) for name in self.shares}) < len(self.shares):
            raise ValueError(f"a domain is given twice: {', '.join(self.shares)}")
        total = sum(self.shares.values())
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares sum to {total:.6g} and not to 1: {self.shares}")
        return self
