"""Packed rows through FlexAttention, against examples alone under the model's own attention.

FlexAttention has gradients on GPUs alone. On a CPU plain products take its call, with the very
functions for masks and scores that it is given, so that its arguments are checked, gradients
included; the tests marked ``gpu`` run the kernel.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask
from transformers import AutoConfig, AutoModelForCausalLM, masking_utils
from transformers.integrations import flex_attention as flex

from versatune.artifacts import FolderRef
from versatune.modeling.checkpoints import CheckpointRef
from versatune.modeling.losses import IGNORE, TokenLoss
from versatune.training import TrainParams, attention, train
from versatune.training import run as run_module
from versatune.training import trainer as trainer_module
from versatune.training.attention import FLEX, candidates, choose_layout
from versatune.training.batches import Collator

LENGTHS = (9, 3, 14)


def model_of(kind: str) -> Any:
    shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    more: dict[str, Any] = {
        "gemma2": {"sliding_window": 4, "attn_logit_softcapping": 2.0},
        "llama4_text": {
            "attention_chunk_size": 4,
            "intermediate_size_mlp": 32,
            "num_local_experts": 2,
            "interleave_moe_layer_step": 2,
        },
        "gpt_oss": {"sliding_window": 4, "num_local_experts": 2, "num_experts_per_tok": 1},
    }[kind]
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **shape, **heads, **more)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


def losses(model: Any, layout: Any) -> Tensor:
    rng = np.random.default_rng(0)
    examples = [rng.integers(5, 60, n) for n in LENGTHS]
    labels = [np.concatenate([[IGNORE], x[1:]]) for x in examples]  # nothing predicts the first
    row = {"input_ids": examples, "labels": labels, "domains": np.arange(len(LENGTHS))}
    parts = [{k: v[i : i + 1] for k, v in row.items()} for i in range(len(LENGTHS))]
    batch = Collator(layout)(parts if layout == "padded" else [row])
    batch.pop("domains")
    on = {k: v.to(model.device) if isinstance(v, Tensor) else v for k, v in batch.items()}
    return TokenLoss(model)(**on)


def compare(model: Any, close: float) -> None:
    """Losses and gradients of a packed row by FlexAttention, and of its examples alone."""
    found = {}
    for name, layout in ((FLEX, "position_ids"), ("eager", "padded")):
        model.set_attn_implementation(name)
        model.zero_grad()
        nats = losses(model, layout)
        nats.sum().backward()
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        found[name] = nats.detach(), torch.cat([g.flatten() for g in grads])
    for ours, alone in zip(found[FLEX], found["eager"], strict=True):
        torch.testing.assert_close(ours, alone, rtol=close, atol=close)


def documented(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    score_mod: Any,
    block_mask: Any,
    scale: float,
    enable_gqa: bool,
    **_: Any,
) -> Tensor:
    """torch's flex_attention as its documentation says, over every pair of tokens."""
    groups = query.shape[1] // key.shape[1]
    assert enable_gqa or groups == 1
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    scores = query @ key.mT * scale
    at = torch.meshgrid(*(torch.arange(n) for n in scores.shape), indexing="ij")
    scores = score_mod(scores, *at).masked_fill(~block_mask.mask_mod(*at), -torch.inf)
    return scores.softmax(-1) @ value


@pytest.fixture
def plain_products(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Plain products in FlexAttention's place; grows with their calls."""
    calls: list[None] = []

    def run(*tensors: Tensor, **how: Any) -> Tensor:
        calls.append(None)
        return documented(*tensors, **how)

    monkeypatch.setattr(flex, "compile_friendly_flex_attention", run)
    # The mask's functions are all that the products read of it.
    monkeypatch.setattr(masking_utils, "create_block_mask", lambda mask_mod, **_: mask_of(mask_mod))
    monkeypatch.setattr(attention, "flexible", lambda _: True)
    return calls


def mask_of(mask_mod: Any) -> BlockMask:
    """A mask that knows its function."""
    return BlockMask.from_kv_blocks(
        torch.ones(1, 1, 1, dtype=torch.int32),
        torch.zeros(1, 1, 1, 1, dtype=torch.int32),
        mask_mod=mask_mod,
    )


@pytest.mark.parametrize("kind", ["gemma2", "llama4_text"])
def test_soft_caps_and_chunks_stay_within_each_example(
    kind: str, plain_products: list[None]
) -> None:
    model = model_of(kind)
    compare(model, 1e-4)
    assert plain_products
    model.set_attn_implementation("eager")
    assert choose_layout(model, True, max(LENGTHS)) == "position_ids"
    assert model.config._attn_implementation == FLEX, "before a mask of every pair of tokens"


def test_it_is_no_choice_without_a_gpu() -> None:
    assert FLEX not in {c.attention for c in candidates(model_of("gemma2"), packing=True)}


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["gemma2", "llama4_text", "gpt_oss"])
def test_the_kernel_gives_the_losses_of_examples_alone(kind: str) -> None:
    model = model_of(kind).cuda()
    compare(model, 2e-2)
    model.set_attn_implementation("eager")
    assert choose_layout(model, True, max(LENGTHS)) == "position_ids"
    assert model.config._attn_implementation == FLEX


def test_a_loss_is_tried_where_the_layouts_are(
    tiny_store: FolderRef,
    tiny_checkpoint: CheckpointRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Afterwards the model waits on the CPU, where FlexAttention may not run."""
    on: list[str] = []

    @contextmanager
    def watched(*_: Any) -> Iterator[None]:
        on.append("device")
        yield
        on.pop()

    def tried(model: Any) -> TokenLoss:
        assert on == ["device"]
        return TokenLoss(model)

    def again(_: Any) -> TokenLoss:
        raise AssertionError("the model ran on the CPU")

    monkeypatch.setattr(run_module, "on_device", watched)
    monkeypatch.setattr(run_module, "TokenLoss", tried)
    monkeypatch.setattr(trainer_module, "TokenLoss", again)
    params = TrainParams.model_validate(
        {"rounds": 1, "steps_per_round": 1, "max_length": 64, "heldout_rows_per_domain": 1}
    )
    train(tiny_store, tiny_checkpoint, params, folder=tmp_path / "trained")
    assert not on
