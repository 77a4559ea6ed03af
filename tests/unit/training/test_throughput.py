"""FLOPs by hand, and the peak that goes with a device's name."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from versatune.training import throughput
from versatune.training.throughput import Work, cost_of, peak_flops

CONFIG = LlamaConfig(
    vocab_size=100,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)
LAYER = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 64
"""Weights of a layer: queries, keys and values, output, the three of the feed-forward block."""


def test_a_trained_weight_costs_six_a_token() -> None:
    cost = cost_of(LlamaForCausalLM(CONFIG))
    assert cost.weights == 6 * 2 * LAYER
    assert cost.head == 6 * 32 * 100
    assert cost.attention == 6 * 2 * 32


def test_a_frozen_weight_costs_four_and_an_adapter_six() -> None:
    model = get_peft_model(
        LlamaForCausalLM(CONFIG), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    )
    adapters = 2 * (32 * 2 + 2 * 32)
    cost = cost_of(model)
    assert cost.weights == 4 * 2 * LAYER + 6 * adapters
    assert cost.head == 4 * 32 * 100


def test_a_token_meets_only_the_experts_it_is_sent_to() -> None:
    config = MixtralConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
        num_local_experts=8,
        num_experts_per_tok=2,
    )
    attention, router, expert = 4 * 32 * 32, 8 * 32, 3 * 32 * 64
    assert cost_of(MixtralForCausalLM(config)).weights == 6 * (attention + router + 2 * expert)


def test_a_step_by_hand() -> None:
    """Two examples of 3 and 5 tokens, four of them supervised."""
    cost = throughput.Cost(weights=10.0, head=100.0, attention=1.0)
    assert cost.flops(Work(tokens=8, supervised=4, squares=9 + 25)) == 80 + 400 + 34


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989.4e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("Tesla T4", None),
    ],
)
def test_the_peak_of_a_device(
    name: str, peak: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    assert peak_flops() == peak
