"""Parameters of evaluation: what is measured, and how."""

from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from versatune.artifacts import file_digest, fingerprint, to_jsonable
from versatune.data.row_choice import ROW_CHOICE
from versatune.evaluation.tasks import CODE_KINDS, Kind
from versatune.modeling.engines import Dtype, Engine, VllmParams
from versatune.params import Params, file_name, renamed

BASE, TUNED = "base", "tuned"
"""The names of the two models in the tables."""

HARNESS_ROWS = 6
"""Raised when the harness's questions or the rows of its results change."""


class SandboxLimits(Params):
    """Limits for a program written by a model. Reaching one fails the item."""

    wall_seconds: float = Field(default=10.0, gt=0)
    """Elapsed time, for the program with all its children."""
    cpu_seconds: int = Field(default=5, ge=1)
    """Processor time of each process."""
    memory_mb: int = Field(default=512, ge=64)
    """Address space of each process, and the size of its folder (which lies in memory): together
    at most ``processes`` + 1 times this."""
    processes: int = Field(default=8, ge=1, le=256)
    """Processes and threads at one time."""
    file_mb: int = Field(default=16, ge=1)
    """Size of one file. There may be 4096 of them."""
    open_files: int = Field(default=64, ge=16)
    """Files open at one time."""


class CodeParams(Params):
    """Programs that the model writes, run against tests (pass@1)."""

    run: bool = False
    """Run programs that the model wrote. If false, files of HumanEval and MBPP shape are left
    out."""
    apply_chat_template: bool = False
    """Ask in the chat format (the program is taken from the first code fence of the answer). If
    false, the model continues the file, as when these benchmarks were made."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Length of a program in tokens, at most."""
    sandbox: SandboxLimits = SandboxLimits()
    """Limits of the sandbox."""


class HarnessParams(Params):
    """Tasks of lm-evaluation-harness by the harness's own names."""

    tasks: dict[str, tuple[str, ...]] = Field(default={})
    """For each domain, names of tasks or groups (``medicine: [medqa_4options]``)."""
    include_path: Path | None = None
    """A folder with task files of your own, in the harness's YAML format. Tasks whose files change
    are measured again; changes of data elsewhere go unnoticed."""
    offline: bool = True
    """Take the data of these tasks only from the local cache. If false, the hub is contacted."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Examples shown before each question; null leaves the task's own number."""

    @field_validator("tasks")
    @classmethod
    def _name_files(cls, tasks: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        return {domain: tuple(map(file_name, names)) for domain, names in tasks.items()}

    def content(self) -> str | None:
        """The fingerprint of the files of ``include_path``, without the compiled Python that
        reading them leaves there."""
        folder = self.include_path
        if folder is None:
            return None
        names = (f.relative_to(folder) for f in folder.rglob("*") if f.is_file())
        kept = sorted(name for name in names if "__pycache__" not in name.parts)
        return fingerprint({str(name): file_digest(folder / name) for name in kept})


class EvaluateParams(Params):
    """Everything that changes the measurements; the same for all compared models."""

    rows_per_domain: int | None = Field(default=None, ge=1)
    """Held-out report rows a domain; null takes all."""
    batch_tokens: int | None = Field(default=None, ge=1)
    """Tokens in a batch of the held-out loss. null: 2048 on a CPU, 16384 else."""
    examples: int = Field(default=2, ge=0)
    """Held-out report rows a domain that base and tuned model answer, greedily, for the report;
    0: none."""
    limit: int | None = Field(default=None, ge=1)
    """Items a task, the first ones; null takes all."""
    apply_chat_template: bool = True
    """Ask questions in the chat format, as in training."""
    batch_size: int | Literal["auto"] = "auto"
    """Rows in a batch of the harness. ``auto``: on a CPU by a rule from the longest row of the task
    and the vocabulary (the same every time), on a GPU by trial."""
    max_new_tokens: int = Field(default=64, ge=1)
    """Length of an answer in tokens, at most, for files without choices."""
    max_thought_tokens: int = Field(default=1024, ge=0)
    """Tokens for a model's thought before an answer, besides those of the answer. A thought that
    does not end is no answer; before choices it is cut and closed. 0: none, and choices are scored
    as in a row without a thought."""
    dtype: Dtype = "float32"
    """Precision of the weights while measuring; ``auto`` takes the one they were saved in."""
    engine: Engine = "auto"
    """What runs the model. ``dynamic`` (``auto``): transformers with a cache that grows, as prompts
    are of every length; ``static``: with a cache of fixed size, compiled on a GPU anew for each
    size. ``vllm``: the harness's own vLLM asks the tasks, if it is installed; held-out losses and
    examples are transformers' in any case."""
    vllm: VllmParams = VllmParams()
    """Used when ``engine`` is ``vllm``."""
    processes: int = Field(default=1, ge=1)
    """Copies of the model, a process each (on GPUs: a GPU each), that share the questions and the
    held-out rows. For ``vllm`` see ``vllm.data_parallel_size``."""
    parallelize: bool = False
    """Divide the layers over all GPUs (accelerate's ``device_map: auto``), for a model that one GPU
    does not hold. For ``vllm`` see ``vllm.tensor_parallel_size``."""
    harness: HarnessParams = HarnessParams()
    """Tasks by the harness's names."""
    code: CodeParams = CodeParams()
    """Programs written by the model."""
    seed: int = Field(default=0, ge=0, lt=1 << 32)
    """Seed of the choice of few-shot examples. Held-out rows do not depend on it."""
    extra_models: dict[str, Path] = Field(default={})
    """More models to measure, by their names in the tables (``last_week: models/last_week``):
    folders with safetensors and the base model's vocabulary."""

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, given: Any) -> Any:
        return renamed(given, {"others": "extra_models"}, "evaluate")

    @model_validator(mode="after")
    def _one_way_of_several_gpus(self) -> Self:
        if self.processes > 1 and self.parallelize:
            raise ValueError(
                "`processes` gives each copy of the model one GPU, `parallelize` one copy all of "
                "them: choose one of the two"
            )
        if self.engine == "vllm" and (self.processes > 1 or self.parallelize):
            raise ValueError(
                "with `engine: vllm`, several GPUs are given by `vllm.data_parallel_size` and "
                "`vllm.tensor_parallel_size`, not by `processes` and `parallelize`"
            )
        return self

    @field_validator("extra_models")
    @classmethod
    def _name_models(cls, models: dict[str, Path]) -> dict[str, Path]:
        taken = sorted({BASE, TUNED} & models.keys())
        if taken:
            raise ValueError(f"{', '.join(taken)}: reserved model name")
        return {file_name(name): path for name, path in models.items()}

    def of_heldout(self) -> dict[str, Any]:
        """The settings that decide held-out losses."""
        return {
            "dtype": self.dtype,
            "rows_per_domain": self.rows_per_domain,
            "row_choice": ROW_CHOICE,
        }

    def of_examples(self) -> dict[str, Any]:
        """The settings that decide the answers to held-out prompts."""
        return {
            "dtype": self.dtype,
            "examples": self.examples,
            "row_choice": ROW_CHOICE,
            "max_new_tokens": self.max_new_tokens,
            "max_thought_tokens": self.max_thought_tokens,
        }

    def of_file(self, kind: Kind) -> dict[str, Any]:
        """The settings that decide the numbers of a local file of this kind."""
        settings = {"dtype": self.dtype, "limit": self.limit, **self._of_engine()}
        if kind in CODE_KINDS:
            settings |= self.code.model_dump(exclude={"run"})
            return settings | self._of_thoughts(chat=self.code.apply_chat_template)
        settings["chat"] = self.apply_chat_template
        settings |= self._of_thoughts(chat=self.apply_chat_template)
        return settings | ({"max_new_tokens": self.max_new_tokens} if kind == "generation" else {})

    def of_harness(self) -> dict[str, Any]:
        """The settings that decide the numbers of a task of the harness."""
        return {
            "dtype": self.dtype,
            "limit": self.limit,
            "chat": self.apply_chat_template,
            "num_fewshot": self.harness.num_fewshot,
            "include_path": self.harness.content(),
            "seed": self.seed,
            "rows": HARNESS_ROWS,
            **self._of_thoughts(chat=self.apply_chat_template),
            **self._of_engine(),
        }

    def _of_thoughts(self, *, chat: bool) -> dict[str, int]:
        return {"max_thought_tokens": self.max_thought_tokens} if chat else {}

    def _of_engine(self) -> dict[str, Any]:
        """transformers' engines give the same numbers, up to rounding."""
        if self.engine != "vllm":
            return {}
        longest = self.vllm.max_model_len  # what cuts questions
        return {"engine": "vllm", **({} if longest is None else {"max_model_len": longest})}

    def fingerprint_fields(self) -> dict[str, Any]:
        """The settings that each part's numbers depend on, as JSON.

        The parts are those that :mod:`versatune.evaluation.measure` keeps results by.
        """
        kinds = [kind for kind in get_args(Kind) if self.code.run or kind not in CODE_KINDS]
        found = {"held_out": self.of_heldout(), **{kind: self.of_file(kind) for kind in kinds}}
        if any(self.harness.tasks.values()):
            found["harness"] = {"tasks": self.harness.tasks, **self.of_harness()}
        return dict(to_jsonable(found))
