"""What ``conf/results/<setting>`` declares: the world (setting.yml), the run (Kedro's blocks)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from kedro.config import OmegaConfigLoader
from pydantic import Field

from versatune.data.config import CleanParams, Domains, TokenizeParams
from versatune.demo.base_model import PretrainParams
from versatune.params import Params
from versatune.settings import CONFIG_LOADER_ARGS
from versatune.training import ReferenceParams, TrainParams

CONF = Path("conf")


class Rows(Params):
    """One domain's rows."""

    facts: int = Field(ge=1)
    """Facts of the embedded sample, each in four phrasings."""
    wrong: float = Field(0.0, ge=0, le=1)
    """The part of the rows whose answer is that of another fact of the same kind."""
    cipher: bool = False
    """Answers in rot13."""


class Adapted(Params):
    """Training that the base model has behind it."""

    shares: dict[str, float] | None
    """None: the stratified mix."""
    steps: int = Field(ge=1)
    learning_rate: float | None = Field(None, gt=0)
    """Peak; None: that of the setting's training."""


class Base(Params):
    """The base model."""

    documents: int = Field(ge=1)
    """Of the pretraining corpus, in the embedded sample's shares."""
    pretrain: PretrainParams
    adapted: Adapted | None = None


class Given(Params):
    """A base model and rows that are given on the command line: ``--given model=...,data=...``."""

    report_rows: int | None = Field(None, ge=1)
    """Rows a domain that results are measured on, and candidates for the oracle; None: all."""
    adapted: Adapted | None = None


class Seeds(Params):
    """Seeds of runs."""

    search: int
    """The oracle's candidates are run with this one."""
    confirm: list[int]
    """The best candidates are run again with these; one of them is the oracle."""
    report: list[int] = Field(min_length=5)
    """All results are of these."""


class Setting(Params):
    """One folder of conf/results."""

    kind: Literal["foster", "expand", "no_data", "declared"]
    seeds: Seeds
    rows: dict[str, Rows] = Field({})
    base: Base | Given | None = None
    """None: there is nothing to run here."""
    targets: list[str] = Field([])
    """Each is raised on its own; ``a+b``: both in one training."""
    tolerance: float = Field(0.0, ge=0)
    trained_on: list[str] | None = None
    """Domains with rows to train on; None: all."""
    world: str | None = None
    """The setting whose world this one shares; None: one of its own."""


GIVEN = {"model": "MODEL", "data": "FOLDER"}
"""What stands for a base model and for rows where none are given: reading needs no more."""


class Declared:
    """A setting with the parameters of its runs.

    ``given``: the folders of a base model and of rows, where a setting has none of its own.
    """

    def __init__(
        self, name: str, given: Mapping[str, str] | None = None, conf: Path = CONF
    ) -> None:
        self.name = name
        self.given = GIVEN | dict(given or {})
        folder = conf / "results" / name
        text = (folder / "setting.yml").read_text(encoding="utf-8")
        self.setting = Setting.model_validate(yaml.safe_load(text))
        self._conf = conf

    def parameters(self) -> dict[str, Any]:
        """Kedro's own reading of the folder over conf/base."""
        env = f"results/{self.name}"
        loader = OmegaConfigLoader(
            str(self._conf), env=env, runtime_params=self.given, **CONFIG_LOADER_ARGS
        )
        return {**loader["parameters"], "globals": loader["globals"]}


class Run(Params):
    """The blocks of a setting's parameters that training needs."""

    seed: int
    data: Path
    domains: Domains
    ingest: CleanParams
    tokenize: TokenizeParams
    train: TrainParams
    references: ReferenceParams

    @classmethod
    def of(cls, declared: Declared) -> "Run":
        """Read them."""
        found = declared.parameters()
        blocks = ("domains", "ingest", "tokenize", "train", "references")
        return cls(
            seed=found["globals"]["seed"],
            data=found["globals"]["data"],
            **{name: found[name] for name in blocks},
        )


def all_settings(conf: Path = CONF) -> list[str]:
    """The names of the settings that are declared."""
    return sorted(f.parent.name for f in (conf / "results").glob("*/setting.yml"))
