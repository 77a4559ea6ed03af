"""What the harness's model is given and gives, beside the questions themselves."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from lm_eval.api.instance import Instance
from transformers import BartConfig, BartForCausalLM

from tests.helpers.chats import small_model, tokenizer_of
from versatune.errors import VersatuneError
from versatune.evaluation import ranks
from versatune.evaluation.language_model import ConversationLM, language_model


@pytest.fixture
def lm() -> Any:
    tokenizer = tokenizer_of("bytes", "chatml")
    return language_model(ConversationLM, small_model(tokenizer), tokenizer, 2, 64)


@pytest.mark.parametrize(
    ("settings", "sampling"),
    [
        ({}, {"do_sample": False}),
        ({"temperature": 0.0}, {"do_sample": False}),
        ({"temperature": 0.5}, {"do_sample": True, "temperature": 0.5}),
        ({"temperature": 0.5, "do_sample": False}, {"do_sample": False}),
    ],
)
def test_without_a_cache_it_samples_as_the_harness_does(
    lm: Any, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], sampling: dict[str, Any]
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(lm.model, "generate", lambda **how: given.update(how))
    ids = torch.tensor([[3, 4, 5]])
    lm._generate_without_cache(ids, torch.ones_like(ids), 9, ["."], settings)
    assert {name: given[name] for name in given.keys() & {"do_sample", "temperature"}} == sampling
    assert (given["max_length"], given["use_cache"]) == (9, False)
    (criterion,) = given["stopping_criteria"]
    assert criterion.sequence == "."


def test_a_model_that_has_a_form_with_an_encoder_is_asked_without() -> None:
    tokenizer = tokenizer_of("bytes", "chatml")
    sizes = {"d_model": 16, "decoder_layers": 1, "decoder_attention_heads": 2}
    config = BartConfig(vocab_size=len(tokenizer), decoder_ffn_dim=16, **sizes)
    lm = language_model(ConversationLM, BartForCausalLM(config), tokenizer, 1, 64)
    assert lm.backend == "causal"


def test_the_batch_on_a_cpu_is_a_rule_and_no_trial() -> None:
    """200 million logits in a batch, of rows of 64 or 50,000 tokens; 64 rows at most."""
    tokenizer = tokenizer_of("bytes", "chatml")
    model = small_model(tokenizer)
    model.config.max_position_embeddings = 50_000
    few = 200_000_000 // (model.config.vocab_size * 50_000)
    for longest, size in ((64, 64), (50_000, few), (99_999, few)):
        assert language_model(ConversationLM, model, tokenizer, "auto", longest).batch_size == size
    assert 1 < few < 64
    assert language_model(ConversationLM, model, tokenizer, 3, 64).batch_size == 3


def test_a_number_of_each_process(lm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lm.all_gather(torch.tensor(7)).tolist() == 7

    def gather(found: list[torch.Tensor], own: torch.Tensor) -> None:
        for number, each in enumerate(found):
            each.copy_(own + number)

    monkeypatch.setattr(ranks, "world", lambda: 3)
    monkeypatch.setattr(dist, "all_gather", gather)
    assert lm.all_gather(torch.tensor(7)).tolist() == [7, 8, 9]


def test_a_token_that_the_model_lacks_is_named_before_it_writes(lm: Any) -> None:
    lm.tokenizer.add_tokens(["spring what"])
    added = lm.tokenizer.convert_tokens_to_ids("spring what")
    settings = {"until": ["."], "max_gen_toks": 4}
    request = Instance("generate_until", {}, ("the spring what", settings), 0, ("task", 0, 1))
    with pytest.raises(VersatuneError, match=rf"holds the token {added} .*resize_token"):
        lm.generate_until([request], True)


def test_control_tokens_stay_in_answers_to_conversations_alone(lm: Any) -> None:
    ids = [*lm.tokenizer("old river", add_special_tokens=False).input_ids, lm.stops[0]]
    end = lm.tokenizer.convert_ids_to_tokens(lm.stops[0])
    assert lm.tok_decode(ids) == "old river"
    lm.apply_chat_template([{"role": "user", "content": "a"}])
    assert lm.tok_decode(ids) == f"old river{end}"


def test_a_thought_leaves_room_for_the_longest_choice(lm: Any) -> None:
    """Of conversations alone; four tokens more for what stands around it."""
    text = lm.apply_chat_template([{"role": "user", "content": "a"}])
    choices = [(text, "law"), (text, "the old river judge of the law"), ("plain", "law " * 99)]
    requests = [Instance("loglikelihood", {}, pair, 0, ("task", 0, 1)) for pair in choices]
    tokens = lm.tokenizer(choices[1][1], add_special_tokens=False).input_ids
    assert lm._room(requests) == len(tokens) + 4
    assert lm._room(requests[2:]) == 4


def test_choices_with_and_without_the_chat_format_keep_their_order(lm: Any) -> None:
    text = lm.apply_chat_template([{"role": "user", "content": "a"}])
    pairs = (("the river", " law"), (text, "law"))
    plain, asked = (Instance("loglikelihood", {}, pair, 0, ("task", 0, 1)) for pair in pairs)
    ((a, _),), ((b, _),) = lm.loglikelihood([plain], True), lm.loglikelihood([asked], True)
    found = [score for score, _ in lm.loglikelihood([plain, asked, plain], True)]
    assert found == pytest.approx([a, b, a], abs=1e-4) and a != pytest.approx(b, abs=1e-2)
