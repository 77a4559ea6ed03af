"""The decoding loop against transformers itself, and drawing tokens against their distribution."""

import numpy as np
import pytest
import torch
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from versatune.modeling.checkpoints import CheckpointRef, load_model
from versatune.samplers.config import SamplingParams
from versatune.samplers.decoding import BLOCK, CHUNK, Batch, Decoder, draw, filtered


def test_draw_by_hand():
    logits = torch.log(torch.tensor([[0.1, 0.2, 0.3, 0.4]])).repeat(5, 1)
    numbers = torch.tensor([0.0, 0.09, 0.11, 0.59, 0.999], dtype=torch.float64)
    assert draw(logits, numbers)[:, 0].tolist() == [0, 0, 1, 2, 3]


@pytest.mark.parametrize("vocabulary", [7, BLOCK, BLOCK + 1, 3 * BLOCK - 5])
def test_draw_is_the_inverse_of_the_cumulated_distribution(vocabulary):
    rng = np.random.default_rng(vocabulary)
    logits = rng.normal(size=(50, vocabulary)) * 3
    logits[:, rng.integers(0, vocabulary, vocabulary // 3)] = -np.inf
    numbers = rng.random(50)
    p = np.exp(logits - logits.max(1, keepdims=True))
    cumulated = p.cumsum(1) / p.sum(1, keepdims=True)
    wanted = [
        int(np.searchsorted(c, u, side="right")) for c, u in zip(cumulated, numbers, strict=True)
    ]
    found = draw(torch.tensor(logits, dtype=torch.float32), torch.tensor(numbers))
    assert found[:, 0].tolist() == wanted


def test_draw_never_takes_a_token_without_mass():
    logits = torch.full((3, 2 * BLOCK), -torch.inf)
    logits[:, 5] = 0.0
    numbers = torch.tensor([0.0, 0.5, np.nextafter(1.0, 0.0)], dtype=torch.float64)
    assert draw(logits, numbers)[:, 0].tolist() == [5, 5, 5]


def test_drawn_frequencies_follow_the_model():
    p = torch.tensor([0.5, 0.25, 0.15, 0.1])
    numbers = torch.from_numpy(np.random.default_rng(0).random(20_000))
    found = draw(torch.log(p).repeat(20_000, 1), numbers)[:, 0]
    shares = np.bincount(found.numpy(), minlength=4) / 20_000
    assert shares == pytest.approx(p.numpy(), abs=0.015)


def test_filters_by_hand():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    none = torch.zeros((1, 0), dtype=torch.long)

    def kept(**how) -> list[bool]:
        return torch.isfinite(filtered(logits.clone(), none, SamplingParams(**how)))[0].tolist()

    assert kept(top_k=2) == [True, True, False, False]
    assert kept(top_p=0.6) == [True, True, False, False]
    assert kept(top_p=0.5) == [True, False, False, False]
    cold = filtered(logits.clone(), none, SamplingParams(temperature=0.5)).softmax(-1)[0]
    assert cold[0].item() == pytest.approx(0.25 / (0.25 + 0.09 + 0.0225 + 0.0025), abs=1e-5)
    seen = torch.tensor([[1]])
    punished = filtered(logits.clone(), seen, SamplingParams(repetition_penalty=1.1))
    assert punished[0, 1].item() == pytest.approx(np.log(0.3) * 1.1, abs=1e-5)
    assert punished[0, 0].item() == pytest.approx(np.log(0.5), abs=1e-5)


def replay(model, start: list[int], tokens: list[int], numbers: np.ndarray) -> list[int]:
    """The tokens that one full forward pass would have drawn, and the one after the last."""
    ids = torch.tensor([start + tokens])
    with torch.inference_mode():
        logits = model(input_ids=ids).logits[0, len(start) - 1 :].float()
    logits = logits[: len(numbers)]
    return draw(logits, torch.from_numpy(numbers[: len(logits)]))[:, 0].tolist()


def models() -> dict[str, torch.nn.Module]:
    torch.manual_seed(1)
    gpt2 = GPT2LMHeadModel(
        GPT2Config(vocab_size=97, n_positions=128, n_embd=32, n_layer=2, n_head=2)
    )
    mistral = MistralForCausalLM(
        MistralConfig(
            vocab_size=97,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=1,
            sliding_window=8,
            max_position_embeddings=128,
        )
    )
    mamba = MambaForCausalLM(
        MambaConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, state_size=4)
    )
    deepseek = DeepseekV3ForCausalLM(
        DeepseekV3Config(
            vocab_size=97,
            hidden_size=32,
            intermediate_size=48,
            moe_intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            n_routed_experts=4,
            num_experts_per_tok=2,
            n_group=1,
            topk_group=1,
            q_lora_rank=16,
            kv_lora_rank=16,
            qk_rope_head_dim=8,
            qk_nope_head_dim=8,
            v_head_dim=8,
            max_position_embeddings=128,
        )
    )
    for weight in mamba.parameters():
        weight.data *= 3.0
    return {
        "gpt2": gpt2.eval(),
        "sliding": mistral.eval(),
        "state": mamba.eval(),
        "latent": deepseek.eval(),
    }


def check_against_full_passes(model, reference, start: list[int]) -> None:
    """Rows end at different steps, one token in twenty being an end, and leave the batch."""
    limit, ends = CHUNK + 9, set(range(40, 45))
    numbers = np.random.default_rng(3).random((24, limit))
    drawn = list(Decoder(model, start, limit).sample(Batch(numbers, ends)))
    assert sorted(row for row, _, _ in drawn) == list(range(24))
    for row, tokens, ended in drawn:
        wanted = replay(reference, start, tokens, numbers[row])
        assert wanted[: len(tokens)] == tokens
        assert not ends & set(tokens)
        assert wanted[len(tokens)] in ends if ended else len(tokens) == limit
    assert 0 < sum(ended for _, _, ended in drawn) < 24


@pytest.mark.parametrize("start", [[0], [0, 7, 9]])
def test_tokens_are_those_of_full_forward_passes(tiny_checkpoint: CheckpointRef, start):
    # grouped key-value heads, a cache that grows
    model, reference = (load_model(tiny_checkpoint, dtype="float32") for _ in range(2))
    assert Decoder(model, start, 4).fast
    check_against_full_passes(model, reference, start)


@pytest.mark.parametrize("name", ["gpt2", "sliding", "state", "latent"])
def test_other_architectures_too(name):
    """A state has no place in a cache of keys and values; a latent cache is no buffer of them."""
    model, reference = models()[name], models()[name]
    decoder = Decoder(model, [0], 4)
    assert (decoder.fast, decoder.whole) == (name == "gpt2", name == "state")
    check_against_full_passes(model, reference, [0])


def test_a_row_does_not_depend_on_its_neighbours(tiny_checkpoint: CheckpointRef):
    model = load_model(tiny_checkpoint, dtype="float32")
    numbers = np.random.default_rng(3).random((8, 20))
    decoder = Decoder(model, [0], 20)
    together = {r: t for r, t, _ in decoder.sample(Batch(numbers, {1}))}
    alone = {i: next(iter(decoder.sample(Batch(numbers[i : i + 1], {1}))))[1] for i in range(8)}
    assert together == alone
