"""Parameters of the small base model."""

from typing import Self

from pydantic import Field, model_validator

from versatune.params import Params


class PretrainParams(Params):
    """The small model that is trained from scratch on the sample's corpus."""

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
    max_length: int = Field(default=512, ge=16)
    """Longest input of the model, in tokens; no document of the corpus may be longer."""
    per_device_train_batch_size: int = Field(default=16, ge=1)
    """Documents an optimiser step."""
    num_train_epochs: float = Field(default=3, gt=0)
    """Passes over the corpus."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Highest learning rate, reached after the warm-up."""
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1)
    """Part of the steps over which the learning rate rises."""
    weight_decay: float = Field(default=0.1, ge=0)
    """AdamW weight decay, only on matrices."""
    save_steps: int = Field(default=100, ge=1)
    """Steps between two checkpoints to resume from."""
    bf16: bool | None = None
    """Compute in bfloat16 (the weights stay float32); null does so where the processor has
    instructions for it, which makes pretraining faster."""
    seed: int = Field(default=0, ge=0)
    """The seed of the initial weights and of the order of the documents."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} is not an even multiple of "
                f"num_attention_heads {self.num_attention_heads}"
            )
        return self
