"""The base model: pretrained on the sample here, or brought along by the user."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from versatune.params import Params


class PretrainParams(Params):
    """The small model that is trained from nothing on the sample's corpus."""

    vocab_size: int = Field(default=2500, ge=260)
    """Tokens of the byte-level BPE vocabulary, the three special ones included."""
    hidden_size: int = Field(default=192, ge=8)
    """Width of the model."""
    intermediate_size: int = Field(default=512, ge=8)
    """Width inside the feed-forward blocks."""
    num_hidden_layers: int = Field(default=4, ge=1)
    """Number of blocks."""
    num_attention_heads: int = Field(default=6, ge=1)
    """Attention heads a block; they divide `hidden_size`."""
    max_length: int = Field(default=256, ge=16)
    """Tokens of a packed training row; no document may be longer."""
    per_device_train_batch_size: int = Field(default=8, ge=1)
    """Packed rows an optimiser step."""
    num_train_epochs: float = Field(default=3, gt=0)
    """Passes over the corpus."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Highest learning rate, reached after the warm-up."""
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1)
    """Part of the steps over which the learning rate rises."""
    weight_decay: float = Field(default=0.1, ge=0)
    """AdamW weight decay, on matrices alone."""
    save_steps: int = Field(default=50, ge=1)
    """Steps between two checkpoints to resume from."""
    seed: int = Field(default=0, ge=0)
    """Settles the initial weights and the order of the documents."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} is not an even multiple of "
                f"num_attention_heads {self.num_attention_heads}"
            )
        return self


class BaseModelParams(Params):
    """Which model is fine-tuned."""

    kind: Literal["pretrain", "pretrained"] = "pretrain"
    """`pretrain` trains a small one on the sample, `pretrained` takes `name_or_path`."""
    name_or_path: str | None = None
    """For `pretrained`: a model folder on this disk, or the id of a model on the Hugging Face hub."""
    revision: str | None = None
    """For a hub model: branch, tag or commit; the main branch when not given."""
    folder: Path = Path("data/06_models/base")
    """For `pretrain`: the folder the model is written to."""
    pretrain: PretrainParams = PretrainParams()
    """For `pretrain`: size and training of the model."""

    @model_validator(mode="after")
    def _name_goes_with_kind(self) -> Self:
        if self.kind == "pretrained" and not self.name_or_path:
            raise ValueError("kind 'pretrained' needs name_or_path: a model folder or a hub id")
        if self.kind == "pretrain" and self.name_or_path:
            raise ValueError(
                f"name_or_path {self.name_or_path!r} is given, but kind is 'pretrain': "
                "set kind to 'pretrained' or name_or_path to null"
            )
        return self


def make_base(params: BaseModelParams, sample: dict[str, Any]) -> dict[str, Any]:
    raise NotImplementedError
