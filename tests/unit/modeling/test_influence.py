"""What losses depend on, by gradients; and models whose losses mean nothing."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, BertConfig, LlamaConfig, MistralConfig

from versatune.errors import VersatuneError
from versatune.modeling.influence import influences, plain_tokens
from versatune.modeling.losses import TokenLoss

SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("window", "first"), [(None, 0), (3, 3)])
def test_a_loss_depends_on_what_attention_sees(
    window: int | None, first: int, dtype: torch.dtype
) -> None:
    """In one layer, the loss at column 5 depends on what the window shows there and no more."""
    torch.manual_seed(0)
    config = MistralConfig(**SMALL, num_key_value_heads=1, sliding_window=window)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    ids = torch.arange(3, 11)[None]
    at, target = torch.tensor([5]), torch.tensor([9])
    loss = TokenLoss(model)
    seen = influences(model, ids, lambda: loss(ids, at, target))
    assert seen is not None
    assert seen.tolist() == [[first <= column <= 5 for column in range(8)]]


def test_tokens_with_a_role_are_not_tried() -> None:
    config = LlamaConfig(**SMALL, pad_token_id=3, eos_token_id=[4, 7], bos_token_id=1)
    tokens = plain_tokens(AutoModelForCausalLM.from_config(config), 46).tolist()
    assert sorted(tokens) == [t for t in range(50) if t not in {1, 3, 4, 7}]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_sees_the_future_is_refused(dtype: torch.dtype) -> None:
    """transformers loads encoders as causal models that are none unless they say is_decoder."""
    torch.manual_seed(0)
    with pytest.raises(VersatuneError, match=r"tokens that follow .*is_decoder: true"):
        TokenLoss(AutoModelForCausalLM.from_config(BertConfig(**SMALL), dtype=dtype))
    config = BertConfig(**SMALL, is_decoder=True)
    TokenLoss(AutoModelForCausalLM.from_config(config, dtype=dtype))
