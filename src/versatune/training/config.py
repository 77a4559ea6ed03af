"""Parameters of training. Names are those of transformers' TrainingArguments where one exists."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from versatune.mixing.config import (
    ObjectiveParams,
    PlanParams,
    StrategyParams,
    UniformParams,
    Unit,
)
from versatune.params import Params


class LoraParams(Params):
    """Low-rank adapters instead of training every weight."""

    r: int = Field(16, ge=1)
    """Rank of the adapters."""
    alpha: int = Field(32, ge=1)
    """Scale: the adapters' product is multiplied by alpha / r."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout before the adapters."""
    target_modules: str | list[str] = "all-linear"
    """Names of the layers that get an adapter; `all-linear` for every linear layer but the head."""
    merge: bool = True
    """Save the model with the adapters merged into it; else the folder holds the adapter alone
    and where its base model is. It is evaluated, and logged to MLflow, merged into that."""


class LauncherParams(Params):
    """More than one process."""

    processes: int = Field(1, ge=1)
    """Processes on this machine. Above 1 the trainer is started as a child of a launcher."""
    config_file: Path | None = None
    """A configuration of `accelerate launch` (deploy/accelerate/*.yaml: FSDP, several nodes).
    Without one, `torch.distributed.run` starts plain data parallelism."""


class TrainParams(PlanParams):
    """How a model is trained and how its mixture adapts."""

    folder: Path = Path("data/06_models/trained")
    """Where the trained model, its history and, while it trains, its checkpoints lie."""
    resume: Literal["continue", "restart"] = "continue"
    """What to do with a training that is in `folder` already: `continue` goes on from its last
    checkpoint. When parameters or data changed since, it refuses if that training is unfinished,
    and else keeps it as `<folder>.previous` and begins anew. `restart` begins anew whenever they
    changed, and keeps nothing."""
    seed: int = 0
    """Decides the order of rows, adapters and dropout."""

    rounds: int = Field(8, ge=1)
    """Rounds; at the end of each, held-out losses are measured and the weights updated."""
    steps_per_round: int = Field(100, ge=1)
    """Optimiser steps in a round."""
    strategy: StrategyParams = UniformParams()
    """How the weights follow the losses."""
    objective: ObjectiveParams = ObjectiveParams()
    """What the strategy minimises, and by which the best round is chosen."""
    unit: Unit = "tokens"
    """What a weight is a share of."""

    learning_rate: float = Field(2e-5, gt=0)
    """Peak learning rate of AdamW."""
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    """Schedule over all rounds; it is never restarted."""
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
    per_device_train_batch_size: int = Field(4, ge=1)
    """Rows of `max_length` tokens a process takes at a time."""
    gradient_accumulation_steps: int = Field(1, ge=1)
    """Batches before each optimiser step."""
    bf16: bool = False
    """Compute in bfloat16 (the weights the optimiser updates are float32 unless `dtype` says
    otherwise)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the weights while they are trained. bfloat16 halves the memory and rounds away
    updates below 1/256 of a weight."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, about a third more time."""
    lora: LoraParams | None = None
    """Train adapters instead of all weights."""
    dataloader_num_workers: int = Field(0, ge=0)
    """Processes that read rows; does not change what is trained."""
    attn_implementation: str | None = None
    """transformers' name of an attention; null chooses by the device."""

    heldout_rows_per_domain: int | None = Field(32, ge=1)
    """Validation rows a domain measured at the end of each round, the same in every run on the
    data; null measures all."""
    heldout_batch_tokens: int | None = Field(None, ge=1)
    """Tokens measured at a time; does not change the result. null: 2048 on a CPU, 16384 else."""

    save_every_rounds: int = Field(1, ge=1)
    """Rounds between checkpoints; the last round always has one."""
    save_steps: int | None = Field(None, ge=1)
    """Checkpoints inside a round too, every so many steps."""
    save_total_limit: int = Field(2, ge=1)
    """Checkpoints kept while training (the best one is kept besides when a rule may return to
    it). They are deleted when training is done."""
    logging_steps: int = Field(10, ge=1)
    """Steps between checks that the loss is finite and not exploding."""
    loss_guard: float | None = Field(3.0, gt=1)
    """Stop when the training loss exceeds so many times the base model's largest held-out loss;
    null stops on NaN alone."""
    launcher: LauncherParams = LauncherParams()
    """More than one process."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.lora is not None and self.dtype == "bfloat16" and not self.bf16:
            raise ValueError("lora with dtype bfloat16 needs bf16: true")
        return self

    def deciding(self) -> dict[str, object]:
        """The parameters that change what is trained: all but those of place, speed and safety."""
        return self.model_dump(mode="json", exclude=_NOT_DECIDING)


_NOT_DECIDING = {
    "folder",
    "resume",
    "dataloader_num_workers",
    "heldout_batch_tokens",
    "save_every_rounds",
    "save_steps",
    "save_total_limit",
    "logging_steps",
    "loss_guard",
}


class ReferenceParams(Params):
    """How the reference losses are measured: a model of each domain alone, stopped early."""

    folder: Path = Path("data/04_feature/references")
    """Where each domain's result is kept; a killed run loses one domain at most."""
    mode: Literal["measure", "none"] = "measure"
    """`measure` trains a model on each domain; `none` needs no runs and gives no references, for
    strategies that go without."""
    proxy: Path | None = None
    """A smaller model's folder to measure with instead of the base model. With another tokenizer
    its losses are compared in bits per byte."""
    eval_steps: int = Field(10, ge=1)
    """Optimiser steps between held-out measurements."""
    max_steps: int = Field(200, ge=1)
    """Optimiser steps at most; what `eval_steps` leave over of them is not run."""
    patience: int = Field(3, ge=1)
    """Measurements without a new minimum before the run ends."""
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    """Part of the steps over which the learning rate rises."""
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    """Schedule over `max_steps`: a reference that does not anneal lies above what a training that
    does reaches. Not given: as in `train`."""
    transfer: float = Field(0.1, ge=0, le=1)
    """Part of a run's cost that measuring it on all other domains may take (forward passes on
    their held-out rows, up to once at every doubling of its steps): from that comes what a share of
    one domain does to the others. 0 measures none."""
    heldout_rows: int | None = Field(32, ge=1)
    """Validation rows measured; null measures all. Not given: as in `train`, so that references
    and losses are of the same rows."""
    seed: int = 0
    """Order of rows. Not given: as in `train`."""
    learning_rate: float = Field(2e-5, gt=0)
    """Peak learning rate. Not given: as in `train`."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay of AdamW. Not given: as in `train`."""
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    """AdamW's first moment decay. Not given: as in `train`."""
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    """AdamW's second moment decay. Not given: as in `train`."""
    max_grad_norm: float = Field(1.0, ge=0)
    """Gradients are clipped to this norm; 0 does not clip. Not given: as in `train`."""
    per_device_train_batch_size: int = Field(4, ge=1)
    """Rows of `max_length` tokens at a time. Not given: as in `train`."""
    gradient_accumulation_steps: int = Field(1, ge=1)
    """Batches before each optimiser step. Not given: as in `train`."""
    max_length: int = Field(1024, ge=8)
    """Tokens of a packed row. Not given: as in `train`."""
    packing: bool = True
    """Whether examples share a row. Not given: as in `train`."""
    bf16: bool = False
    """Compute in bfloat16. Not given: as in `train`."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the weights. Not given: as in `train`."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass. Not given: as in `train`."""
    lora: LoraParams | None = None
    """Train adapters instead of all weights. Not given: as in `train`, whose learning rate is
    meant for one or the other."""
    attn_implementation: str | None = None
    """transformers' name of an attention. Not given: as in `train`."""
    loss_guard: float | None = Field(3.0, gt=1)
    """Stop when the training loss exceeds so many times the base model's held-out loss; null
    stops on NaN alone. Not given: as in `train`."""

    def like(self, train: TrainParams) -> Self:
        """These parameters with those of training in place of what was not given."""
        own = set(type(self).model_fields) - {"folder", "warmup_ratio"} - self.model_fields_set
        same = {name: getattr(train, name) for name in own & set(TrainParams.model_fields)}
        if "heldout_rows" in own:
            same["heldout_rows"] = train.heldout_rows_per_domain
        return self.model_copy(update=same)
