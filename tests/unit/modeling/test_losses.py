"""The loss at supervised positions equals the full one, for several architectures."""

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
)

from versatune.modeling import losses
from versatune.modeling.losses import IGNORE, Targets, TokenLoss, cross_entropy_

SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
CONFIGS = {
    "llama": (LlamaConfig(**SMALL), "apart"),
    "gemma2 (softcap)": (Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=3.0), "apart"),
    "gpt2": (GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2), "apart"),
    "mamba": (
        MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, state_size=4),
        "apart",
    ),
    "cohere (scaled logits)": (CohereConfig(**SMALL, logit_scale=0.2, pad_token_id=0), "columns"),
}


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 50, (3, 11), generator=generator)
    labels = ids.clone()
    labels[:, :4] = IGNORE
    labels[1, 6:] = IGNORE
    return ids, labels


@pytest.mark.parametrize("name", CONFIGS)
def test_equals_the_models_own_loss(name: str) -> None:
    config, way = CONFIGS[name]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    ids, labels = batch()
    target = Targets.of(labels.numpy())
    token_loss = TokenLoss(model)
    assert token_loss.way == way
    nats = token_loss(ids, torch.from_numpy(target.positions), torch.from_numpy(target.tokens))
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1].reshape(-1, 50)
    full = torch.nn.functional.cross_entropy(
        logits, labels[:, 1:].reshape(-1), ignore_index=IGNORE, reduction="none"
    )
    expected = full[labels[:, 1:].reshape(-1) != IGNORE]
    torch.testing.assert_close(nats, expected, rtol=1e-5, atol=1e-5)
    nats.sum().backward()
    ours = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    expected.sum().backward()
    theirs = [p.grad for p in model.parameters() if p.grad is not None]
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_targets_by_hand() -> None:
    labels = np.array([[7, 8, -100], [-100, -100, 9]])
    target = Targets.of(labels)
    # The 7 in the first column has no predecessor: nothing predicts it.
    assert target.positions.tolist() == [0, 4]
    assert target.tokens.tolist() == [8, 9]


def test_cross_entropy_gradient_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_BLOCK", 14)  # two rows of seven at a time
    logits = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 6, 3, 3, 1])
    weight = torch.tensor([1.0, 2.0, 0.0, 1.0, 0.5])
    (cross_entropy_(logits.clone(), targets) * weight).sum().backward()
    ours = logits.grad.clone()
    logits.grad = None
    plain = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    (plain * weight).sum().backward()
    torch.testing.assert_close(ours, logits.grad, rtol=1e-5, atol=1e-6)


def test_a_second_backward_pass_is_refused() -> None:
    """The first scales the kept gradient in place."""
    logits = torch.randn(5, 7, requires_grad=True)
    loss = cross_entropy_(logits.clone(), torch.tensor([0, 6, 3, 3, 1])).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS["llama"][0])
    ids, labels = batch()
    target = Targets.of(labels.numpy())
    arguments = (ids, torch.from_numpy(target.positions), torch.from_numpy(target.tokens))
    whole = TokenLoss(model)(*arguments)
    whole.sum().backward()
    gradient = model.lm_head.weight.grad.clone()
    model.zero_grad()
    monkeypatch.setattr(losses, "_AT_ONCE", 200)  # four rows of fifty at a time
    parts = TokenLoss(model)(*arguments)
    parts.sum().backward()
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(model.lm_head.weight.grad, gradient)


def test_bfloat16_losses_keep_their_digits() -> None:
    logits = torch.randn(20, 1000).bfloat16()
    targets = torch.arange(20)
    ours = cross_entropy_(logits, targets)
    assert ours.dtype == torch.float32
    exact = torch.nn.functional.cross_entropy(logits.double(), targets, reduction="none")
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-5)


def test_bfloat16_gradients_are_those_of_float32() -> None:
    """To the roundings of gradient, factor and product, 1/256 each."""
    torch.manual_seed(0)
    rounded = torch.randn(20, 1000).bfloat16().requires_grad_()
    exact = rounded.detach().float().requires_grad_()
    targets, weight = torch.arange(20), torch.linspace(1, 3, 20) / 301
    (cross_entropy_(rounded.clone(), targets) * weight).sum().backward()
    (torch.nn.functional.cross_entropy(exact, targets, reduction="none") * weight).sum().backward()
    assert rounded.grad.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.grad.float(), exact.grad, rtol=3.1 / 256, atol=1e-9)


def test_a_batch_without_targets() -> None:
    model = AutoModelForCausalLM.from_config(CONFIGS["llama"][0])
    none = torch.zeros(0, dtype=torch.long)
    nats = TokenLoss(model)(torch.ones(1, 4, dtype=torch.long), none, none)
    assert nats.shape == (0,)
    nats.sum().backward()


def test_a_head_that_is_whole_only_while_it_works() -> None:
    """As under DeepSpeed's ZeRO 3: between its calls a divided weight has no rows."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SMALL)).eval()
    ids, labels = batch()
    target = Targets.of(labels.numpy())
    given = ids, torch.from_numpy(target.positions), torch.from_numpy(target.tokens)
    token_loss = TokenLoss(model)
    wanted = token_loss(*given).detach()
    head = model.get_output_embeddings()
    whole = head.weight.data

    def gather(*_: object) -> None:
        head.weight.data = whole

    def divide(*_: object) -> None:
        head.weight.data = torch.empty(0)

    divide()
    head.register_forward_pre_hook(gather)
    head.register_forward_hook(divide)
    with torch.no_grad():
        torch.testing.assert_close(token_loss(*given), wanted)
        prepared = token_loss.prepared(*given[:2])
        assert token_loss.vocabulary == 50
        assert prepared(slice(0, 3)).shape == (3, 50)
