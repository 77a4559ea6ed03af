"""Answers that are written in a batch are those that are written alone."""

from typing import Any

import pytest
import torch
from transformers import (
    Lfm2MoeConfig,
    Lfm2MoeForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
    RwkvConfig,
    RwkvForCausalLM,
)

from tests.helpers.chats import tokenizer_of
from versatune.data.answers import Answers, stop_tokens
from versatune.evaluation.language_model import ConversationLM, language_model
from versatune.evaluation.padding import one_by_one, reads_padding

SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 3}
HEADS: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 8}
KINDS: dict[str, Any] = {
    "llama": (LlamaForCausalLM, LlamaConfig, SIZES | HEADS | {"intermediate_size": 64}, False),
    "rwkv": (RwkvForCausalLM, RwkvConfig, SIZES | {"attention_hidden_size": 32}, True),
    "recurrent_gemma": (
        RecurrentGemmaForCausalLM,
        RecurrentGemmaConfig,
        SIZES | HEADS | {"intermediate_size": 64, "lru_width": 32, "attention_window_size": 64},
        True,
    ),
    # Without a layer of attention transformers' cache can't count tokens.
    "conv-only": (
        Lfm2MoeForCausalLM,
        Lfm2MoeConfig,
        {"hidden_size": 32, "num_hidden_layers": 2, "layer_types": ["conv", "conv"]}
        | {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}
        | {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2},
        False,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_writes_what_its_rows_write_alone(kind: str) -> None:
    tokenizer = tokenizer_of("bytes", "chatml")
    architecture, config, sizes, reads = KINDS[kind]
    torch.manual_seed(0)
    model = architecture(config(vocab_size=len(tokenizer), **sizes)).eval()
    for weight in model.parameters():
        weight.data *= 3.0
    assert reads_padding(model) == reads
    questions = ["why", "what is the law of the old river", "where is it", "who"]

    def written(batch: int) -> list[str]:
        lm = language_model(ConversationLM, model, tokenizer, batch, 64)
        asked = [lm.apply_chat_template([{"role": "user", "content": q}]) for q in questions]
        return lm.generate_until([request(text, n) for n, text in enumerate(asked)], True)

    assert written(4) == written(1) == [greedily(model, tokenizer, q) for q in questions]


def test_one_by_one_by_hand() -> None:
    """Two prompts in four columns, to six at most; the second writes one token and pads."""
    given: list[Any] = []

    def generate(ids: torch.Tensor, mask: torch.Tensor, max_length: int) -> torch.Tensor:
        given.append((ids.tolist(), mask.tolist(), max_length))
        made = [[7, 8]] if len(given) == 1 else [[9]]
        return torch.cat([ids, torch.tensor(made)], dim=1)

    context = torch.tensor([[0, 0, 3, 4], [0, 4, 5, 6]])
    mask = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])
    found = one_by_one(generate, context, mask, 6, pad=0)
    assert found.tolist() == [[0, 0, 3, 4, 7, 8], [0, 4, 5, 6, 9, 0]]
    assert given == [([[3, 4]], [[1, 1]], 4), ([[4, 5, 6]], [[1, 1, 1]], 5)]


def greedily(model: Any, tokenizer: Any, question: str) -> str:
    """Six tokens, each after a pass over the whole text without a cache."""
    answers = Answers(tokenizer)
    ids = answers.prompt([{"role": "user", "content": question}])
    ends = {*stop_tokens(tokenizer, None), tokenizer.eos_token_id}
    made: list[int] = []
    while len(made) < 6 + answers.overhead:
        with torch.no_grad():
            logits = model(torch.tensor([ids + made]), use_cache=False).logits[0, -1]
        made.append(int(logits.argmax()))
        if made[-1] in ends:
            break
    return answers.content(tokenizer.decode(made))


def request(text: str, number: int) -> Any:
    from lm_eval.api.instance import Instance

    settings = {"until": ["\n\n\n"], "max_gen_toks": 6, "do_sample": False}
    return Instance("generate_until", {}, (text, settings), number, ("task", number, 1))
