"""Parameters of the data: domains, their sources, how they are cleaned and tokenised."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from versatune.data.file_formats import Format
from versatune.domains import by_domain, canonical
from versatune.params import Params, RootParams, file_name

Shape = Literal["alpaca", "prompt_completion", "messages", "sharegpt", "text"]

FIELDS: dict[Shape, tuple[str, ...]] = {
    "alpaca": ("instruction", "output", "input", "system", "history", "tools", "documents"),
    "prompt_completion": ("prompt", "completion", "system", "history", "tools", "documents"),
    "messages": ("messages", "system", "tools", "documents"),
    "sharegpt": ("conversations", "system", "tools", "documents"),
    "text": ("text",),
}
"""The fields of each shape; the first one or two must be there, ``input`` and those from
``system`` on may be missing."""


class Source(Params):
    """Rows of one domain that come from one place: a file, a glob, a saved dataset or the hub."""

    model_config = ConfigDict(serialize_by_alias=True)

    own: bool = Field(default=False, alias="self")
    """Texts that the base model itself writes, judged to be of this domain, instead of ``path``:
    for a domain without data (docs/no-data.md)."""
    path: str | None = None
    """A file (also compressed: ``.gz``, ``.zst``, ``.bz2``, ``.xz``), a glob such as
    ``data/law/*.jsonl``, a folder written by ``save_to_disk``, or a folder of data files such as
    the clone of a hub data set."""
    hub: str | None = None
    """The id of a data set on the Hugging Face hub, instead of ``path``. No code of it is run."""
    name: str | None = None
    """The configuration of the hub data set, where it has several."""
    split: str = "train"
    """The split to read from a hub data set, a folder with several splits, or a JSON file with a
    list for each split. Other splits are left out."""
    revision: str | None = None
    """A commit or tag of the hub data set. Without it later changes on the hub go unnoticed."""
    streaming: bool = False
    """Read the hub data set as a stream, without a copy on the disk, for example if it is larger
    than the disk. Rows, their order and their checks are the same."""
    format: Format | None = None
    """File format; inferred from the suffix when left out. ``text``: one document a file (``.txt``,
    ``.md``); ``lines``: one document a line."""
    shape: Shape | None = None
    """Shape of a row; detected from the columns when left out. ``text``: documents, whose every
    token is trained on."""
    columns: dict[str, str] = Field(default={})
    """Field of the shape -> column of the file, where the names differ. A column that no row has is
    an error, also for an optional field."""
    weight: float | None = Field(default=None, ge=0)
    """Wanted proportion of this source's rows in its domain. All sources of a domain or none."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.own:
            fields = type(self).model_fields.items()
            others = [n for n, f in fields if n != "own" and getattr(self, n) != f.default]
            if others:
                raise ValueError(
                    f"a source with `self: true` takes no other key, not {others[0]!r}"
                )
            return self
        if (self.path is None) == (self.hub is None):
            raise ValueError("a source has either `path` or `hub`, or is `self: true`")
        if self.hub is None and (self.name or self.revision):
            raise ValueError("`name` and `revision` belong to a `hub` source, not to a `path`")
        if self.hub is None and self.streaming:
            raise ValueError("`streaming` belongs to a `hub` source: files are streams anyway")
        if self.hub is not None and self.format is not None:
            raise ValueError("`format` belongs to a `path`, not to a `hub` source")
        known = FIELDS[self.shape] if self.shape else {f for fs in FIELDS.values() for f in fs}
        for field in self.columns:
            if field not in known:
                raise ValueError(
                    f"`columns` has {field!r}, which is no field of "
                    f"{self.shape or 'any shape'}; the fields are {', '.join(sorted(known))}"
                )
        for column in self.columns.values():
            takers = [field for field, taken in self.columns.items() if taken == column]
            if len(takers) > 1:
                raise ValueError(
                    f"`columns` takes {' and '.join(takers)} from one column, {column!r}"
                )
        return self

    @property
    def label(self) -> str:
        """How messages and reports call this source."""
        if self.own:
            return "self"
        return self.path if self.path is not None else f"hub:{self.hub}"


class EvaluationFile(Params):
    """A local multiple-choice file: rows of ``question``, ``choices``, ``answer``."""

    path: str
    """The JSONL file."""
    task: str
    """How results call it; the file's name without suffix when left out."""
    apart: bool = False
    """Measured and shown beside the domain's results, but not counted: neither in its accuracy nor
    in verdicts or promotion. For multiple choice, the nats of the right answer are measured too."""

    @model_validator(mode="before")
    @classmethod
    def _task_from_path(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("task") is None and data.get("path"):
            return {**data, "task": Path(str(data["path"])).stem}
        return data

    _names_files = field_validator("task")(file_name)


class DomainConfig(Params):
    """One domain: what it is, and where its rows come from."""

    description: str
    """What belongs to the domain, in one sentence; judges and the report use it."""
    sources: list[Source] = Field(min_length=1)
    """Where training rows come from."""
    evaluation: list[EvaluationFile] = Field(default=[])
    """Multiple-choice files: held out of training data, and asked by the evaluate stage."""
    validation_fraction: float | None = Field(default=None, gt=0, lt=1)
    """Overrides ``ingest.validation_fraction`` for this domain."""
    max_rows: int | None = Field(default=None, ge=2)
    """Overrides ``ingest.max_rows`` for this domain."""

    @property
    def rehearses(self) -> bool:
        """Whether its rows include the base model's own texts."""
        return any(source.own for source in self.sources)

    @property
    def only_own(self) -> bool:
        """Whether it has no other rows."""
        return all(source.own for source in self.sources)

    @field_validator("sources")
    @classmethod
    def _weights(cls, sources: list[Source]) -> list[Source]:
        if sum(source.own for source in sources) > 1:
            raise ValueError("`self: true` may appear once among a domain's sources")
        given = [s.weight for s in sources if s.weight is not None]
        if given and len(given) < len(sources):
            raise ValueError("give every source of the domain a `weight`, or none")
        if given and sum(given) <= 0:
            raise ValueError("the weights of a domain's sources sum to zero")
        return sources


class Domains(RootParams[dict[str, DomainConfig | None]]):
    """The domains in their order. An overlay removes one by setting it to null."""

    @model_validator(mode="before")
    @classmethod
    def _names_are_text(cls, data: Any) -> Any:
        for name in data if isinstance(data, Mapping) else ():
            if not isinstance(name, str):
                raise ValueError(
                    f"a domain's name is {name!r}, which is not text: YAML reads yes, no, on, off, "
                    "true, false, null and numbers otherwise, so write the name in quotes"
                )
        return data

    @model_validator(mode="after")
    def _names(self) -> Self:
        active = by_domain({name: c for name, c in self.root.items() if c is not None})
        if len(active) < 2:
            raise ValueError("name at least two domains: there is nothing to mix otherwise")
        if all(config.only_own for config in active.values()):
            raise ValueError("every domain has only `self: true`: at least one must have rows")
        return self

    @property
    def active(self) -> dict[str, DomainConfig]:
        """Settled name -> config, without the removed ones, in order."""
        return {canonical(n): c for n, c in self.root.items() if c is not None}

    @property
    def descriptions(self) -> dict[str, str]:
        """What each domain is about, as judges read it."""
        return {name: config.description for name, config in self.active.items()}


class CleanParams(Params):
    """How rows are checked, filtered and split. Top-level key ``ingest``."""

    seed: int
    """Decides the split and which rows limits and weights leave out."""
    max_reject_rate: float = Field(default=0.05, ge=0, le=1)
    """The run stops when a larger share of a source's rows is broken, or of a domain's rows is
    lost in cleaning and tokenising together."""
    max_examples: int = Field(default=5, ge=1)
    """How many rejected rows the report names for each domain and reason."""
    max_line_bytes: int = Field(default=1 << 20, ge=1024)
    """Longer lines (JSONL, CSV), rows and documents are rejected unread. In a JSON list, which
    can't be read on after an error, a longer row ends the run."""
    near_duplicate_threshold: float | None = Field(default=0.85, ge=0.5, le=1)
    """Rows whose word 5-grams overlap more than this (Jaccard) are near duplicates; null: keep."""
    leak_words: int = Field(default=13, ge=5)
    """A row that shares this many consecutive words with an evaluation question is removed."""
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Part of the prompts that is held out. One half steers (shares, references, early stops), the
    other half is only for the results."""
    min_validation_rows: int = Field(default=1, ge=1)
    """Small domains hold out at least this many rows to steer, and as many to report."""
    max_rows: int | None = Field(default=None, ge=2)
    """At most this many rows a domain (chosen by seed), training and held-out rows together."""


class TokenizeParams(Params):
    """How cleaned rows become token sequences. Top-level key ``tokenize``."""

    max_length: int = Field(default=512, ge=8)
    """Longest sequence in tokens (the paper's code uses 512)."""
    overflow: Literal["drop", "truncate"] = "drop"
    """What happens to longer conversations. One whose prompt fills ``max_length`` is dropped.
    Documents (shape ``text``) are cut into pieces of ``max_length``, without loss."""
    num_workers: int | None = Field(default=None, ge=1)
    """Processes to tokenise with; null: by the number of rows and cores. With ``parallel.engine:
    ray`` they are spread over the cluster (null: all of it). Does not change the result."""
