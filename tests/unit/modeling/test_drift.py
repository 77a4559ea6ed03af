"""KL of known logits, and of models whose logits are known."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import Categorical
from torch.distributions.kl import kl_divergence as torch_kl

from tests.helpers.tiny import save_tiny
from versatune.modeling import drift
from versatune.modeling.checkpoints import CheckpointRef, load_model
from versatune.modeling.drift import kl_divergence, text_drift


def test_kl_by_hand() -> None:
    p, q = torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[0.25, 0.25, 0.5]])
    wanted = 0.5 * math.log(2) + 0.25 * math.log(0.5)
    assert kl_divergence(p.log(), q.log()).item() == pytest.approx(wanted, rel=1e-6)
    assert kl_divergence(p.log() + 7, q.log() - 3).item() == pytest.approx(wanted, rel=1e-5)
    assert kl_divergence(p.log(), p.log()).item() == 0.0
    # What the base never says costs nothing; what the trained model never says costs everything.
    sure = torch.tensor([[0.0, -math.inf]])
    assert kl_divergence(sure, torch.zeros(1, 2)).item() == pytest.approx(math.log(2))
    assert kl_divergence(torch.zeros(1, 2), sure).item() == math.inf
    with pytest.raises(ValueError, match="shapes"):
        kl_divergence(torch.zeros(1, 2), torch.zeros(2, 2))


def test_each_text_is_the_sum_over_its_own_positions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against torch's own KL, text by text without padding, in blocks that split a text."""
    base = load_model(save_tiny(tmp_path / "a", vocab_size=300, seed=0), dtype="float32")
    other = load_model(save_tiny(tmp_path / "b", vocab_size=300, seed=1), dtype="float32")
    rng = np.random.default_rng(0)
    texts = [rng.integers(3, 300, size=n) for n in (9, 2, 30, 17)]
    monkeypatch.setattr(drift, "_BLOCK", 300 * 5)
    found = text_drift(base, other, texts, batch_tokens=64)
    assert found[:, 1].tolist() == [8, 1, 29, 16]
    for (nats, _), ids in zip(found, texts, strict=True):
        with torch.no_grad():
            p, q = (
                Categorical(logits=m(torch.from_numpy(ids)[None]).logits) for m in (base, other)
            )
        assert nats == pytest.approx(torch_kl(p, q)[0, :-1].sum().item(), rel=1e-4)
    assert text_drift(base, base, texts)[:, 0].tolist() == [0.0] * 4
    with pytest.raises(ValueError, match="text 1 has 1 tokens"):
        text_drift(base, other, [texts[0], texts[1][:1]])


def test_adapters_are_measured_against_the_model_without_them(
    tiny_checkpoint: CheckpointRef,
) -> None:
    from peft import LoraConfig, get_peft_model

    base = load_model(tiny_checkpoint, dtype="float32")
    adapted = get_peft_model(
        load_model(tiny_checkpoint, dtype="float32"),
        LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False),
    )
    texts = [np.arange(3, 40), np.arange(60, 80)]
    found = text_drift(None, adapted.train(), texts)
    np.testing.assert_allclose(found, text_drift(base, adapted, texts), rtol=1e-5)
    assert (found[:, 0] > 0).all() and adapted.training


def test_on_texts_the_base_drew_the_rise_in_loss_is_the_drift(tmp_path: Path) -> None:
    """Why a tolerance on held-out own texts is one on drift: the two differ by chance alone."""
    base = load_model(save_tiny(tmp_path / "a", vocab_size=270, seed=0), dtype="float32")
    other = load_model(save_tiny(tmp_path / "b", vocab_size=270, seed=1), dtype="float32")
    with torch.no_grad():
        for model in (base, other):  # random weights say little: sharper, and so further apart
            model.model.norm.weight.mul_(20)
        torch.manual_seed(0)
        ids = torch.full((600, 1), 3)
        for _ in range(8):
            logits = base(ids).logits[:, -1]
            ids = torch.cat([ids, torch.multinomial(logits.softmax(-1), 1)], dim=1)
        rise = torch.zeros(600)
        for model, sign in ((base, -1), (other, 1)):
            loss = torch.nn.functional.cross_entropy(
                model(ids[:, :-1]).logits.transpose(1, 2), ids[:, 1:], reduction="none"
            )
            rise += sign * loss.sum(1)
    nats = text_drift(base, other, list(ids.numpy()))[:, 0]
    apart = rise.numpy() - nats
    assert nats.mean() > 1
    assert abs(apart.mean()) < 4 * apart.std() / 600**0.5 < 0.3 * nats.mean()
