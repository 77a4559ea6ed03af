"""Parameters of the probe."""

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from versatune.modeling.engines import Dtype
from versatune.params import Params
from versatune.probing.known import KNOWN
from versatune.samplers.config import SamplingParams, ServerParams

MIN_AUDIT = 200
"""Fewest samples of an audit: with fewer its intervals contain the truth too seldom."""
FEW_ANSWERS = 150
"""Answers below which an audit is warned about: the number asked for is reached by chance."""
MODEL_MISSING = "is empty: give the folder of an instruct model"


class RoundsParams(Params):
    """The number of sequences that are drawn."""

    samples_per_round: int = Field(default=512, ge=2)
    """Sequences in each of the T rounds; after each round the intervals are checked."""
    min_rounds: int = Field(default=2, ge=1)
    """Rounds before the first check."""
    max_rounds: int = Field(default=20, ge=1)
    """The limit."""
    half_width: float = Field(default=0.02, gt=0, lt=0.5)
    """Stop once every share's 95 % interval is no wider than this to either side."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_rounds > self.max_rounds:
            raise ValueError(
                f"min_rounds ({self.min_rounds}) is above max_rounds ({self.max_rounds})"
            )
        return self


class OneJudgeParams(Params):
    """Properties that every judge's parameters have."""

    counts_as_true: ClassVar = False
    """Whether its answers are the truth, so that there are no errors to measure."""
    needs_rows: ClassVar = False
    """Whether it knows a domain only by its rows."""

    def missing(self) -> tuple[tuple[str, ...], str] | None:
        """A required key that is missing, and the message; None if all are given."""
        return None


class ClassifierParams(OneJudgeParams):
    """TF-IDF of words and characters, logistic regression, calibrated."""

    needs_rows = True

    rows_per_domain: int = Field(default=2000, ge=10)
    """Most ingested rows used of each domain, held-out ones included; drawn by seed."""
    held_out: float = Field(default=0.3, gt=0, lt=1)
    """Share of them kept for calibration and for measuring the judge's errors."""
    max_features: int = Field(default=50_000, ge=100)
    """Size of the word and of the character vocabulary, each."""
    regularisation: float = Field(default=10.0, gt=0)
    """scikit-learn's C: larger trusts the rows more."""
    max_chars: int = Field(default=2000, ge=100)
    """Characters of a text that are looked at."""
    weak_evidence: float = Field(default=0.0, ge=0, lt=1)
    """A text whose likeliest domain is below this probability goes to ``other`` wholly; 0: off."""


class LikelihoodParams(OneJudgeParams):
    """A local instruct model scores the domains' labels."""

    name_or_path: str = ""
    """Folder (or hub id in the local cache) of the model; empty: the base model is refused."""
    labelled_per_domain: int = Field(default=100, ge=10)
    """Ingested rows of each domain judged for calibration and correction."""
    batch_size: int = Field(default=32, ge=1)
    """Texts scored at once."""
    max_text_tokens: int = Field(default=192, ge=16)
    """Tokens of a text that are looked at."""
    dtype: Dtype = "auto"
    """torch dtype the model is loaded in."""

    def missing(self) -> tuple[tuple[str, ...], str] | None:
        return None if self.name_or_path else (("name_or_path",), MODEL_MISSING)


class EndpointParams(OneJudgeParams):
    """A served chat model gives each text a probability per domain as JSON."""

    server: ServerParams = ServerParams()
    """Its /chat/completions is asked."""
    labelled_per_domain: int = Field(default=50, ge=10)
    """Ingested rows of each domain judged for calibration and correction."""
    response_format: Literal["json_schema", "json_object", "text"] = "json_schema"
    """The structured output that the server is asked for; ``text`` for servers without it."""
    temperature: float = Field(default=0.0, ge=0)
    """Of the judge's own sampling."""
    max_tokens: int = Field(default=256, ge=16)
    """Length limit of an answer."""
    max_chars: int = Field(default=4000, ge=100)
    """Characters of a text that are sent."""
    max_failed: float = Field(default=0.2, ge=0, le=1)
    """Above this share of texts without any answer the probe stops; run it again to continue."""

    def missing(self) -> tuple[tuple[str, ...], str] | None:
        said = f"is empty: name the model as {self.server.place} knows it"
        return None if self.server.model else (("server", "model"), said)


class PersonParams(OneJudgeParams):
    """People write each text's domain into a CSV file."""

    counts_as_true = True

    file: Path | None = None
    """The file, which the first run makes; by default ``labels.csv`` in the folder of the catalog
    entry ``kept_answers``. Answers in it are kept and not asked for again; use another file for
    other domains."""


class JudgeParams(Params):
    """The judge decides which domain a text belongs to. A field besides ``kind`` is a judge of that
    name."""

    kind: str = "classifier"
    """One of the names below. ``classifier`` is trained on the ingested rows; ``likelihood`` is a
    local instruct model; ``endpoint`` is a served chat model; ``person`` (only for an audit) asks
    people."""
    classifier: ClassifierParams = ClassifierParams()
    """Used by that kind."""
    likelihood: LikelihoodParams = LikelihoodParams()
    """Used by that kind."""
    endpoint: EndpointParams = EndpointParams()
    """Used by that kind."""
    person: PersonParams = PersonParams()
    """Used by that kind."""

    @field_validator("kind")
    @classmethod
    def _is_there(cls, kind: str) -> str:
        kinds = [name for name in cls.model_fields if name != "kind"]
        if kind not in kinds:
            raise ValueError(f"there is no judge {kind!r}; there are {', '.join(kinds)}")
        return kind

    @property
    def own(self) -> OneJudgeParams:
        """The parameters of the judge that is asked."""
        own: OneJudgeParams = getattr(self, self.kind)
        return own


class AuditParams(Params):
    """A second, better judge judges a part of the samples and corrects the first.

    This corrects errors that the first judge makes on the samples but not on its labelled rows.
    """

    n: int = Field(default=0, ge=0)
    """Samples it judges, on average, more of those that the first judge is unsure of; 0: no audit.
    """
    judge: JudgeParams = JudgeParams(kind="endpoint")
    """The second judge. It must be more accurate than the first: the shares become those that it
    would give on all samples."""


class EstimateParams(Params):
    """From judgements to shares."""

    correction: Literal["pacc", "acc", "em", "none"] = "pacc"
    """How the judge's errors are corrected: adjusted counts of probabilities or of hard labels,
    expectation maximisation, or not at all."""
    bootstrap: int = Field(default=1000, ge=100)
    """Bootstrap replicates behind each interval."""
    too_wide: float = Field(default=0.05, gt=0)
    """Warn when a 95 % interval reaches further than this to either side."""


class OwnTextParams(Params):
    """Which samples are the base model's own texts: what a source ``{self: true}`` trains on, and
    what drift is measured on."""

    min_confidence: float = Field(default=0.5, ge=0, le=1)
    """The judge's probability of a text's likeliest domain is at least this."""
    min_tokens: int = Field(default=8, ge=2)
    """Shorter texts are left out."""
    held_out: float = Field(default=0.3, gt=0, lt=1)
    """Share of a domain's own texts that is not trained on: half steers, half is for results."""


class ProbeParams(Params):
    """Detection: the share of each domain in the base model's texts."""

    seed: int = Field(ge=0)
    """Of the samples, the judge's split and the bootstrap."""
    known_distribution: str | None = None
    """Name of a model whose counts the paper's code ships; skips the probe."""
    sampling: SamplingParams = SamplingParams()
    """How sequences are drawn."""
    rounds: RoundsParams = RoundsParams()
    """How many."""
    judge: JudgeParams = JudgeParams()
    """Who judges them."""
    audit: AuditParams = AuditParams()
    """A second judge of some of the samples."""
    estimate: EstimateParams = EstimateParams()
    """How shares are computed from judgements."""
    own_texts: OwnTextParams = OwnTextParams()
    """Which samples are used to train on and to measure drift on."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.known_distribution is not None and self.known_distribution not in KNOWN:
            raise ValueError(
                f"known_distribution: there is none named {self.known_distribution!r}; "
                f"there are {', '.join(KNOWN)}"
            )
        return self

    @model_validator(mode="after")
    def _auditable(self) -> Self:
        if self.judge.own.counts_as_true:
            raise ValueError(
                f"judge.kind {self.judge.kind} is for probe.audit.judge: people would have to read "
                "every sample"
            )
        if not self.audit.n:
            return self
        if self.audit.n < MIN_AUDIT:
            raise ValueError(
                f"audit.n is {self.audit.n}: below {MIN_AUDIT} an audit's intervals contain the "
                "truth too seldom"
            )
        if self.estimate.correction == "em":
            raise ValueError(
                "estimate.correction em needs one judge's probabilities for every sample: with "
                "audit.n above 0 use pacc, acc or none"
            )
        second = self.audit.judge
        if second.kind == self.judge.kind and second.own == self.judge.own:
            raise ValueError("audit.judge is the same as judge: a second judge must be another one")
        if missing := second.own.missing():
            key = ".".join(("audit", "judge", second.kind, *missing[0]))
            raise ValueError(f"{key} {missing[1]}")
        return self
