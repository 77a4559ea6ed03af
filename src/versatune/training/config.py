"""Parameters of training. Names are those of transformers' TrainingArguments where one exists."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from versatune.mixing.config import (
    ExpandParams,
    ObjectiveParams,
    StrategyParams,
    UniformParams,
    Unit,
)
from versatune.mixing.plan_config import PlanParams
from versatune.params import Params, did_you_mean
from versatune.training.round_steps import RoundSteps, round_steps

MOMENT_BYTES = {
    "adamw_torch_fused": None,
    "adamw_torch": None,
    "adamw_8bit": 2,
    "adamw_bnb_8bit": 2,
    "paged_adamw_8bit": 0,
    "paged_adamw_32bit": 0,
    "lion_8bit": 1,
    "lion_32bit": 4,
    "paged_lion_8bit": 0,
    "paged_lion_32bit": 0,
    "adafactor": 0,
    "sgd": 0,
}
"""Optimisers, by transformers' names (``adamw_bnb_8bit`` is another name of ``adamw_8bit``), and
bytes of their state for each trained parameter; None: two numbers of the parameter's type. Paged
state lies in the host's memory; Adafactor keeps a row and a column of each matrix."""

if TYPE_CHECKING:
    Optim = str
else:
    Optim = Literal[tuple(MOMENT_BYTES)]


class LoraParams(Params):
    """Low-rank adapters instead of training every weight."""

    r: int = Field(16, ge=1)
    """Rank of the adapters."""
    alpha: int = Field(32, ge=1)
    """Scale: the adapters' product is multiplied by alpha / r."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout before the adapters."""
    target_modules: str | list[str] = "all-linear"
    """Names of the layers that get an adapter; `all-linear`: every linear layer except the head."""
    merge: bool = True
    """Save the model with the adapters merged into it. If false, the folder holds only the adapter
    and the place of its base model; for evaluation and MLflow it is merged into that."""


class InterpolateParams(Params):
    """A model between the base model and the trained one, chosen after training."""

    parts: list[float] = Field([0.25, 0.5, 0.75, 1.0], min_length=1)
    """Parts of the way from the base model (0) to the trained one (1) that may be taken: the one
    with the lowest objective on steering rows of those within ``objective.tolerance``."""
    margin: float = Field(0.0, ge=0)
    """Standard errors of their measured change by which the other domains must be within it."""

    @field_validator("parts")
    @classmethod
    def _in_order(cls, parts: list[float]) -> list[float]:
        if not all(0 <= part <= 1 for part in parts) or len(set(parts)) < len(parts):
            raise ValueError(f"parts must be different numbers from 0 to 1, got {parts}")
        return sorted(parts)


class LauncherParams(Params):
    """More than one process."""

    processes: int = Field(1, ge=1)
    """Processes on this machine. Above 1 the trainer is started as a child of a launcher."""
    config_file: Path | None = None
    """A configuration of `accelerate launch` (deploy/accelerate/*.yaml: FSDP, several nodes).
    Without one, `torch.distributed.run` starts data parallel training."""


ATTENTIONS = (
    *("eager", "sdpa", "flex_attention"),
    *("flash_attention_2", "flash_attention_3", "flash_attention_4"),
)
"""The attentions of transformers that training can use; the paged ones are only for serving."""


class TrainParams(PlanParams):
    """How a model is trained and how its mixture adapts."""

    resume: Literal["continue", "restart"] = "continue"
    """What to do with an earlier training. `continue` continues it from its last checkpoint. If
    parameters or data have changed since, an unfinished training is refused, and a finished one is
    kept as `trained.previous` before training starts over. `restart` starts over whenever they have
    changed, and keeps nothing."""
    seed: int = Field(0, ge=0, lt=1 << 32)
    """Seed of the order of rows, of adapters and of dropout."""

    rounds: int = Field(8, ge=1)
    """Rounds. After each, held-out losses are measured and the shares updated."""
    steps_per_round: int = Field(100, ge=1)
    """Optimiser steps in a round, on average if rounds grow."""
    round_growth: float = Field(1.0, ge=1)
    """Ratio of a round's steps to those of the round before. The total stays ``rounds`` x
    ``steps_per_round``. Above 1, short rounds come first: shares move sooner, while the learning
    rate is still high."""
    strategy: StrategyParams = UniformParams()
    """How the shares follow the losses."""
    objective: ObjectiveParams = ObjectiveParams()
    """What strategies minimise. The best round is chosen by it, and the forecast, a comparison's
    verdicts, the report's headline and promotion use it."""
    unit: Unit = "supervised_tokens"
    """The unit of shares. Losses are means over ``supervised_tokens``, those of answers: under
    equal shares of ``tokens`` a domain with long prompts and short answers hardly counts."""

    learning_rate: float = Field(2e-5, gt=0)
    """Peak learning rate of AdamW."""
    lr_scheduler_type: Literal[
        "cosine", "linear", "constant", "constant_with_warmup", "warmup_stable_decay"
    ] = "cosine"
    """Schedule over all rounds, without restarts. Cosine spends most of its learning rate before a
    strategy has learnt anything; ``warmup_stable_decay`` holds the rate and lowers it at the end.
    """
    decay_ratio: float = Field(0.2, gt=0, lt=1)
    """Part of all steps over which ``warmup_stable_decay`` lets the rate fall to 0 (linearly)."""
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    """Part of all steps over which the learning rate rises from 0."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay of AdamW."""
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    """AdamW's first moment decay."""
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    """AdamW's second moment decay."""
    max_grad_norm: float = Field(1.0, ge=0)
    """Gradients are clipped to this norm; 0 does not clip."""
    optim: Optim = "adamw_torch_fused"
    """transformers' name of the optimiser. 8-bit ones keep their state in 8 bits, paged ones in the
    host's memory (both, and lion, need the extra `quantized`); `adafactor` has hardly any state,
    `sgd` none. Lion needs a learning rate of a third to a tenth of AdamW's."""
    per_device_train_batch_size: int = Field(4, ge=1)
    """Rows of `max_length` tokens in a batch of one process."""
    gradient_accumulation_steps: int = Field(1, ge=1)
    """Batches before each optimiser step."""
    bf16: bool | Literal["auto"] = False
    """Compute in bfloat16 (the weights the optimiser updates are float32 unless `dtype` says
    otherwise). `auto` does so where the device has instructions for it: GPUs from compute
    capability 8.0 on, CPUs with avx512_bf16 or amx_bf16."""
    dtype: Literal["float32", "bfloat16", "auto"] = "float32"
    """Type of the weights while they are trained. bfloat16 halves the memory but rounds away
    updates below 1/256 of a weight: use it for frozen weights with adapters. `auto` is bfloat16
    where the device has instructions for it, else float32."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, about a third more time."""
    lora: LoraParams | None = None
    """Train adapters instead of all weights."""
    quantization: Literal["nf4"] | None = None
    """QLoRA: hold the base model's linear layers in 4 bits while adapters are trained (extra
    `quantized`). The trained model is saved in full precision, the adapters merged into it."""
    torch_compile: bool = False
    """Compile the model's blocks (torch.compile): once, since the batch is filled up to one shape.
    Worth it on GPUs and in long trainings; results differ by rounding."""
    interpolate: InterpolateParams | Literal["auto"] | None = "auto"
    """Save a model between the base and the trained one (WiSE-FT), chosen on steering rows; each
    part is measured once. `auto` does so where `expand` with `rule: constrained` ended with
    another domain beyond its tolerance; null saves the trained model."""
    dataloader_num_workers: int = Field(0, ge=0)
    """Processes that read rows; the result does not depend on it."""
    attn_implementation: str | None = None
    """transformers' name of an attention (``sdpa``, ``eager``, ``flash_attention_2``), or the
    ``owner/name`` of a kernel on the hub; null chooses by the device."""

    heldout_rows_per_domain: int | None = Field(32, ge=1)
    """Steering rows a domain measured at the end of each round, the same in every run on the
    data; null measures all."""
    heldout_tokens_per_domain: int | None = Field(None, ge=1)
    """If these rows have fewer supervised tokens than this, more rows of the domain are measured,
    since a few short answers give a noisy loss. null: only rows count."""
    heldout_batch_tokens: int | None = Field(None, ge=1)
    """Tokens measured at a time; does not change the result. null: 2048 on a CPU, 16384 else."""

    save_every_rounds: int = Field(1, ge=1)
    """Rounds between checkpoints; the last round always has one."""
    save_steps: int | None = Field(None, ge=1)
    """Steps between checkpoints inside a round; null: only at its end."""
    save_total_limit: int = Field(2, ge=1)
    """Checkpoints kept while training (and the best one, when a rule may return to it). They are
    deleted after training."""
    logging_steps: int = Field(10, ge=1)
    """Steps between reports of loss, learning rate, gradient norm, speed and memory (bar, MLflow,
    steps.jsonl), and between checks that the loss is finite and not exploding."""
    loss_guard: float | None = Field(3.0, gt=1)
    """Stop when the training loss exceeds this multiple of the base model's largest held-out loss;
    null: only on NaN."""
    launcher: LauncherParams = LauncherParams()
    """More than one process."""

    @field_validator("attn_implementation")
    @classmethod
    def _is_attention(cls, name: str | None) -> str | None:
        if name is not None and name not in ATTENTIONS and "/" not in name:
            raise ValueError(
                f"transformers has no such attention{did_you_mean(name, ATTENTIONS)}; it has "
                f"{', '.join(ATTENTIONS)}"
            )
        return name

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.lora is not None and self.dtype == "bfloat16" and self.bf16 is False:
            raise ValueError("lora with dtype bfloat16 needs bf16: true")
        if self.quantization is not None and self.lora is None:
            raise ValueError("quantization trains adapters: give lora: {} (or its parameters) too")
        round_steps(self.rounds, self.steps_per_round, self.round_growth)
        return self

    @property
    def steps(self) -> RoundSteps:
        """The steps of each round."""
        return round_steps(self.rounds, self.steps_per_round, self.round_growth)

    @property
    def autocast(self) -> bool:
        """``bf16`` of parameters that are settled for a device (``precision.resolved``)."""
        if self.bf16 == "auto":
            raise ValueError("bf16: auto is not settled yet: see training.precision.resolved")
        return self.bf16

    @property
    def may_interpolate(self) -> bool:
        """Whether a model between the base and the trained one may be saved."""
        strategy = self.strategy
        constrained = isinstance(strategy, ExpandParams) and strategy.rule == "constrained"
        return constrained if self.interpolate == "auto" else self.interpolate is not None

    def fingerprint_fields(self) -> dict[str, object]:
        """The parameters that change the trained model: all except those of speed and safety."""
        fields = self.model_dump(mode="json", exclude=_NOT_IN_FINGERPRINT)
        # At these values a training is what it was before there were such parameters.
        if not self.may_interpolate:
            del fields["interpolate"]
        elif isinstance(between := fields["interpolate"], dict) and between["margin"] == 0:
            del between["margin"]
        if fields["round_growth"] == 1.0:
            del fields["round_growth"]
        return fields


def check_changes(changes: Mapping[str, Any], own: Collection[str], setter: str) -> None:
    """Raise ValueError unless ``changes`` are parameters of training, none of those in ``own``."""
    if taken := [name for name in own if name in changes]:
        raise ValueError(f"{', '.join(taken)}: set by {setter} for each run")
    TrainParams.model_validate(changes)


_NOT_IN_FINGERPRINT = {
    "resume",
    "torch_compile",
    "dataloader_num_workers",
    "heldout_batch_tokens",
    "save_every_rounds",
    "save_steps",
    "save_total_limit",
    "logging_steps",
    "loss_guard",
}
